"""Pictures of results: how they spread, and the best, the median and the worst object."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lib.evaluation.cases import Scene
from lib.evaluation.models import Entrant
from lib.evaluation.options import Options
from lib.evaluation.protocol import Judgement
from lib.evaluation.results import LOWER_IS_BETTER, TITLES, Row
from lib.evaluation.runner import ALL_PIPELINES, Desk, Plan, open_case
from lib.palette import MASK_COLOURS, ORANGE, Colour
from lib.prompts.types import FramePrompts
from lib.reports.figures import box_plot, curves
from lib.reports.overlay import edge, outlined, png_bytes
from lib.reports.sheet import Tile, contact_sheet

TILE = 240  # pixels of a tile's side
# The cut-out is this many times as large as the object, so that what lies around it shows.
CONTEXT = 2.0
SMALLEST_CUT = 32  # pixels of the frame
LEGEND = (("truth", MASK_COLOURS["truth"]), ("network", MASK_COLOURS["after"]), ("prompt", ORANGE))

Mask = NDArray[np.bool_]


def ranking_metric(rows: Sequence[Row], order: Sequence[str]) -> str | None:
    """The first metric in the order that objects were rated by."""
    rated = {name for row in rows if row.object for name in row.values}
    return next((name for name in order if name in rated), None)


def spread_figure(rows: Sequence[Row], metric: str, title: str) -> bytes:
    """Box plot (PNG) of a metric over the objects, a box for each prompt and network."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.object and metric in row.values:
            groups.setdefault(_series(row, row.frames), []).append(row.values[metric])
    limits = None if metric in LOWER_IS_BETTER else (-0.02, 1.02)
    return box_plot(groups, TITLES[metric], title, limits=limits)


def frames_figure(rows: Sequence[Row], metric: str, title: str) -> bytes | None:
    """Curves (PNG) of a metric's mean over the number of prompted frames; None for a single number."""
    points: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if metric in row.values:
            points.setdefault(_series(row), {}).setdefault(row.frames, []).append(row.values[metric])
    if len({frames for found in points.values() for frames in found}) < 2:
        return None
    series = {
        name: [(float(frames), statistics.fmean(values)) for frames, values in sorted(found.items())]
        for name, found in points.items()
    }
    return curves(series, "prompted frames", f"mean {TITLES[metric]}", title)


def picked(rows: Sequence[Row], metric: str) -> dict[str, Row]:
    """The best, the median and the worst of some rows, as far as there are as many."""
    rated = [row for row in rows if row.object and metric in row.values]
    rated.sort(key=lambda row: row.values[metric], reverse=metric not in LOWER_IS_BETTER)
    places = {"best": 0, "median": len(rated) // 2, "worst": len(rated) - 1}
    found: dict[str, Row] = {}
    for name, place in places.items():
        if rated and rated[place] not in found.values():
            found[name] = rated[place]
    return found


@dataclass(frozen=True)
class Gallery:
    """Draws objects of a finished evaluation. The network draws each again: masks are not kept.

    Attributes:
        plan: of the evaluation.
        options: of the evaluation.
    """

    plan: Plan
    options: Options

    def sheet(self, entrant: Entrant, rows: Sequence[Row], metric: str, title: str) -> bytes | None:
        """Outlines (PNG) of the best, the median and the worst; None where nothing was rated."""
        lines = [
            self._tiles(entrant, row, f"{name}: {TITLES[metric]} {row.values[metric]:.3f}")
            for name, row in picked(rows, metric).items()
        ]
        if lines and max(map(len, lines)) == 1:
            lines = [[tile for line in lines for tile in line]]
        return png_bytes(contact_sheet(lines, heading=title, legend=LEGEND)) if lines else None

    def _tiles(self, entrant: Entrant, row: Row, caption: str) -> list[Tile]:
        case = next(case for case in self.plan.cases if case.id == row.image)
        scene = open_case(case, self.options)
        pipeline = next(pipeline for pipeline in ALL_PIPELINES if pipeline.name == row.pipeline)
        trial = next(
            trial
            for trial in pipeline.trials(scene, (row.object,), self.options)
            if (trial.frame, trial.prompt.name, trial.prompt.frames) == (row.frame, row.prompt, row.frames)
        )
        desk = Desk(case.id, scene, pipeline, self.options, replace(self.plan.rules, metrics=()))
        (judgement,) = desk.judge(entrant, trial)
        text = f"{caption}\n{row.image}\n{row.label}, {_asked(row.prompt, row.frames)}"
        return [_tile(scene, judgement, index, f"{text}, frame {index}") for index in judgement.shown]


def _series(row: Row, frames: int = 1) -> str:
    return f"{_asked(row.prompt, frames)}, {row.weights}"


def _asked(prompt: str, frames: int) -> str:
    return f"{prompt} on {frames} frames" if frames > 1 else prompt


def _tile(scene: Scene, judgement: Judgement, index: int, caption: str) -> Tile:
    frame = scene.frames[index]
    nothing = np.zeros(frame.shape[:2], np.bool_)
    truth = scene.mask(judgement.object, index) if index in scene.annotated else nothing
    found = judgement.masks.get(index, nothing)
    asked = judgement.prompts.get(index)
    area = cut_out(truth | found)
    masks: dict[str | Colour, Mask] = {"truth": truth[area], "after": found[area]}
    if asked is not None:
        # One pixel of a small cut-out is enough to be seen, of a large one it is not.
        reach = max(truth[area].shape) // TILE
        masks[ORANGE] = prompt_mask(asked, truth.shape, reach)[area]
    return Tile(outlined(np.ascontiguousarray(frame[area]), masks, side=TILE), caption)


def cut_out(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns of a part of the frame around a mask, square where the frame allows it."""
    if not mask.any():
        return slice(None), slice(None)
    ys, xs = np.nonzero(mask)
    side = max(round(CONTEXT * max(np.ptp(ys) + 1, np.ptp(xs) + 1)), SMALLEST_CUT)
    rows, columns = (_part(places, side, size) for places, size in zip((ys, xs), mask.shape, strict=True))
    return rows, columns


def prompt_mask(prompts: FramePrompts, shape: tuple[int, ...], reach: int = 0) -> Mask:
    """A prompt as pixels that can be drawn: a small square for a click, a line for a box, the mask itself.

    Args:
        prompts: of one frame.
        shape: (H, W) of the frame.
        reach: pixels from the middle of a click's square to its sides.
    """
    drawn: Mask = np.zeros(shape, np.bool_)
    for x, y in np.rint(prompts.points).astype(int):
        drawn[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
    if prompts.box is not None:
        x0, y0, x1, y1 = np.rint(prompts.box).astype(int)
        inside = np.zeros(shape, np.bool_)
        inside[y0:y1, x0:x1] = True
        drawn |= edge(inside)
    return drawn if prompts.mask is None else drawn | edge(prompts.mask)


def _part(places: NDArray[np.integer], side: int, size: int) -> slice:
    """So many pixels around some places, moved inside the frame."""
    start = int(places.min() + places.max() + 1 - side) // 2
    start = max(0, min(start, size - side))
    return slice(start, start + side)
