"""Boxes: ``roi`` of four or six numbers, ``box`` and ``boxes``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.errors import PromptError
from lib.prompts.parsing.grid import Grid
from lib.prompts.parsing.points import MAX_POINTS
from lib.prompts.parsing.slices import Range
from lib.prompts.parsing.values import sequence, vector
from lib.prompts.types import Box
from lib.transforms.orientation import in_plane_axes

MAX_BOXES = MAX_POINTS

_ROI = "[x0, y0, x1, y1], or pairs for each axis [i0, i1, j0, j1, k0, k1]"
_BOX = "[x0, y0, x1, y1], or [x0, y0, x1, y1, k] with its slice"


@dataclass(frozen=True)
class BoxRequest:
    """A rectangle, on the slices that the client gave or, when it gave none, on one still to be told.

    Attributes:
        name: The field that it came from, for error messages.
        rectangle: x0, y0, x1, y1 in frame pixels, half-open, inside the image.
        slices: ``[first, stop)``, or None.
        is_bound: True when ``slices`` is an extent of the object and so a bound on the answer.
    """

    name: str
    rectangle: tuple[float, float, float, float]
    slices: Range | None = None
    is_bound: bool = False

    def on(self, grid: Grid, slices: Range) -> Box:
        """The box on these slices."""
        x0, y0, x1, y1 = self.rectangle
        return Box(grid.ijk(x0, y0, slices[0]), grid.ijk(x1, y1, slices[1]))


def read_roi(request: Mapping[str, Any], grid: Grid) -> list[BoxRequest]:
    """The request's ``roi``; absent, null and [] are none.

    Four numbers (CVAT) are two corners in any order, x first. Six (3D Slicer) are pairs for each axis, in any
    order within a pair and maybe outside the image, where they are cut off; the last slice of a pair belongs
    to the ROI.

    Raises:
        PromptError: It has another length, no area, or lies outside the image.
    """
    value = _flattened(sequence(request.get("roi"), "roi", _ROI))
    if not value:
        return []
    numbers = vector(value, "roi", (4, 6), _ROI)
    if len(numbers) == 4:
        return [BoxRequest("roi", _rectangle(numbers, "roi", grid))]
    pairs = [sorted(numbers[start : start + 2]) for start in (0, 2, 4)]
    (x0, x1), (y0, y1) = (pairs[axis] for axis in in_plane_axes(grid.axis))
    rectangle = _rectangle((x0, y0, x1, y1), "roi", grid)
    return [BoxRequest("roi", rectangle, _slices(pairs[grid.axis], grid), is_bound=True)]


def read_boxes(value: Any, name: str, grid: Grid) -> list[BoxRequest]:
    """A list of boxes [x0, y0, x1, y1] or [x0, y0, x1, y1, k], each on one slice; None entries are left out.

    Raises:
        PromptError: An entry is no such box, has no area, or lies outside the image.
    """
    entries = sequence(value, name, f"a list of boxes, each {_BOX}")
    kept = [(index, entry) for index, entry in enumerate(entries) if entry is not None]
    if len(kept) > MAX_BOXES:
        raise PromptError(f"{name} has {len(kept)} boxes; at most {MAX_BOXES} are allowed.")
    return [read_box(entry, f"{name}[{index}]", grid) for index, entry in kept]


def read_box(value: Any, name: str, grid: Grid) -> BoxRequest:
    """One box [x0, y0, x1, y1] or [x0, y0, x1, y1, k], its corners in any order.

    Raises:
        PromptError: It is no such box, has no area, or lies outside the image.
    """
    numbers = vector(value, name, (4, 5), _BOX)
    rectangle = _rectangle(numbers[:4], name, grid)
    if len(numbers) == 4:
        return BoxRequest(name, rectangle)
    index = math.floor(numbers[4] + 0.5)
    if not 0 <= index < grid.count:
        raise PromptError(f"{name} is on slice {index}, but {grid.slices_text}.")
    return BoxRequest(name, rectangle, (index, index + 1))


def _flattened(value: Sequence[Any]) -> Sequence[Any]:
    """Two corners [[x0, y0], [x1, y1]] as one list; anything else as it is."""
    if len(value) == 2 and all(isinstance(corner, list | tuple) and len(corner) == 2 for corner in value):
        return [*value[0], *value[1]]
    return value


def _rectangle(corners: Sequence[float], name: str, grid: Grid) -> tuple[float, float, float, float]:
    """Sorted corners, cut off at the image's borders."""
    (xa, ya), (xb, yb) = grid.local(*corners[:2]), grid.local(*corners[2:4])
    low, high = (min(xa, xb), min(ya, yb)), (max(xa, xb), max(ya, yb))
    if low[0] >= high[0] or low[1] >= high[1]:
        raise PromptError(
            f"{name} has no area: x from {low[0]:g} to {high[0]:g}, y from {low[1]:g} to {high[1]:g}."
        )
    width, height = grid.size
    if high[0] <= 0 or high[1] <= 0 or low[0] >= width or low[1] >= height:
        raise PromptError(
            f"{name} is outside the image: x from {low[0]:g} to {high[0]:g}, y from {low[1]:g} to "
            f"{high[1]:g}, and a slice is {width} x {height} pixels."
        )
    return max(low[0], 0.0), max(low[1], 0.0), min(high[0], float(width)), min(high[1], float(height))


def _slices(pair: Sequence[float], grid: Grid) -> Range:
    """A sorted pair of slices, both in the ROI, as ``[first, stop)`` cut off at the image's borders."""
    first, last = (math.floor(value + 0.5) for value in pair)
    if last < 0 or first >= grid.count:
        raise PromptError(f"roi is outside the image: slices {first} to {last}, but {grid.slices_text}.")
    return max(first, 0), min(last, grid.count - 1) + 1
