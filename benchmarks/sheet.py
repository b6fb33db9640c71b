"""One picture of all objects: the slice, the truth, our mask and GrabCut's for the same box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from benchmarks.targets import Mask
from benchmarks.trials import GRABCUT, OURS, Trial

PANEL = 220  # pixels, side of one slice's cut-out
CAPTION = 34  # pixels below it
GAP = 6
COLUMNS = 8
TEXT = 12
# The cut-out is this many times as large as the box, so that what lies around the object shows.
_CONTEXT = 2.0
_SMALLEST_CUT = 32  # pixels of the image

PAPER, INK = (255, 255, 255), (30, 30, 30)
COLOURS = {"truth": (70, 230, 70), OURS: (255, 160, 0), GRABCUT: (230, 60, 230)}


def draw_sheet(trials: Sequence[Trial]) -> Image.Image:
    """A panel per object with outlines, and below it the Dice coefficients for the box."""
    rows = -(-len(trials) // COLUMNS)
    width = COLUMNS * (PANEL + GAP) + GAP
    sheet = Image.new("RGB", (width, CAPTION + rows * (PANEL + CAPTION + GAP)), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    _legend(pen, font)
    for number, trial in enumerate(trials):
        left = GAP + number % COLUMNS * (PANEL + GAP)
        top = CAPTION + number // COLUMNS * (PANEL + CAPTION + GAP)
        sheet.paste(_panel(trial), (left, top))
        scores = ", ".join(f"{method} {trial.dice['box'][method]:.2f}" for method in trial.boxed)
        title = f"{trial.target.item.id}: {trial.target.name}"
        while pen.textlength(title, font) > PANEL:
            title = title[:-1]
        pen.multiline_text((left, top + PANEL + 2), f"{title}\n{scores}", INK, font, spacing=2)
    return sheet


def cut_out(box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of a square around a box, moved inside the image where it fits."""
    x0, y0, x1, y1 = box
    side = max(round(_CONTEXT * max(x1 - x0, y1 - y0)), _SMALLEST_CUT)
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    left = max(0, min(left, width - side))
    top = max(0, min(top, height - side))
    return left, top, side


def _legend(pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> None:
    left = GAP
    for name, colour in COLOURS.items():
        pen.rectangle((left, GAP, left + TEXT, GAP + TEXT), colour)
        pen.text((left + TEXT + GAP, GAP), name, INK, font)
        left += TEXT + 4 * GAP + int(pen.textlength(name, font))


def _panel(trial: Trial) -> Image.Image:
    if trial.levels is None:
        raise ValueError(f"nothing was measured on {trial.target.name} of {trial.target.item.id}")
    height, width = trial.levels.shape[:2]
    left, top, side = cut_out(trial.target.box(), width, height)
    area = (left, top, left + side, top + side)
    slice_ = Image.fromarray(trial.levels).crop(area).resize((PANEL, PANEL), Image.Resampling.BICUBIC)
    pixels = np.asarray(slice_).copy()
    masks = {"truth": trial.target.truth, **trial.boxed}
    for name in (GRABCUT, OURS, "truth"):
        if name in masks:
            pixels[_outline(masks[name], area)] = COLOURS[name]
    return Image.fromarray(pixels)


def _outline(mask: Mask, area: tuple[int, int, int, int]) -> Mask:
    large = Image.fromarray(mask.astype(np.uint8) * 255).crop(area).resize((PANEL, PANEL))
    inside = np.asarray(large) > 127
    return inside & ~binary_erosion(inside)
