"""A contact sheet of all objects: slice, ground truth, our mask and GrabCut's for the same box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmarks.trials import GRABCUT, OURS, Trial
from lib.palette import MASK_COLOURS
from lib.reports.pictures import Tile, contact_sheet, outlined

PANEL = 220  # pixels, side of one slice's cut-out
COLUMNS = 8
# Side of the cut-out relative to the box, so that the surroundings are visible.
_CONTEXT = 2.0
_SMALLEST_CUT = 32  # pixels of the image

COLOURS = {"truth": MASK_COLOURS["truth"], OURS: MASK_COLOURS["after"], GRABCUT: MASK_COLOURS["before"]}


def draw_sheet(trials: Sequence[Trial]) -> Image.Image:
    """A panel per object with outlines, and the Dice coefficients for the box below it."""
    tiles: list[Tile | None] = [_tile(trial) for trial in trials]
    tiles += [None] * (-len(tiles) % COLUMNS)
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    return Image.fromarray(contact_sheet(rows, legend=list(COLOURS.items())))


def cut_out(box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of a square around a box, moved inside the image if it fits."""
    x0, y0, x1, y1 = box
    side = max(round(_CONTEXT * max(x1 - x0, y1 - y0)), _SMALLEST_CUT)
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    left = max(0, min(left, width - side))
    top = max(0, min(top, height - side))
    return left, top, side


def _tile(trial: Trial) -> Tile:
    if trial.levels is None:
        raise ValueError(f"{trial.target.name} of {trial.target.item.id} was not measured")
    height, width = trial.levels.shape[:2]
    left, top, side = cut_out(trial.target.box(), width, height)
    area = (left, top, left + side, top + side)
    masks = {"truth": trial.target.truth, **trial.boxed}
    drawn = {
        COLOURS[name]: np.asarray(Image.fromarray(mask).crop(area))
        for name, mask in masks.items()
        if name in COLOURS
    }
    slice_ = np.asarray(Image.fromarray(trial.levels).crop(area))
    scores = ", ".join(f"{method} {trial.dice['box'][method]:.2f}" for method in trial.boxed)
    title = f"{trial.target.item.id}: {trial.target.name}"
    return Tile(outlined(slice_, drawn, side=PANEL, fill=0), f"{title}\n{scores}")
