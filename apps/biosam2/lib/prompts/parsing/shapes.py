"""Points and boxes of every dialect."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.errors import PromptError
from lib.prompts.parsing.grid import Grid, Range, SliceOption
from lib.prompts.parsing.values import number, sequence, shown, vector
from lib.prompts.types import Box, Point
from lib.transforms.orientation import in_plane_axes

MAX_POINTS = 1000  # in one list: no person clicks more, and the decoder's time and memory grow with each
MAX_BOXES = MAX_POINTS

_POINT_LABELS = {1.0: True, 0.0: False}
_PADDING = -1.0  # VISTA-3D pads its lists with this label
_ROI = "[x0, y0, x1, y1], or pairs for each axis [i0, i1, j0, j1, k0, k1]"
_BOX = '[x0, y0, x1, y1], [x0, y0, x1, y1, k] or {"slice": k, "box": [x0, y0, x1, y1]}'


class PointReader:
    """Reads points on one image.

    Args:
        grid: The image.
        option: The request's slice, for the points that come as [x, y].
    """

    def __init__(self, grid: Grid, option: SliceOption) -> None:
        self._grid = grid
        self._option = option

    def read(self, value: Any, name: str, positive: bool = True) -> list[Point]:
        """A list of points; None is an empty list, and None entries (OHIF sends them) are left out.

        Raises:
            PromptError: It is no list of points inside the image, or it is longer than ``MAX_POINTS``.
        """
        entries = sequence(value, name, "a list of points, [[i, j, k], ...]")
        kept = [(index, entry) for index, entry in enumerate(entries) if entry is not None]
        _check_count(len(kept), name)
        return [self._one(entry, f"{name}[{index}]", positive) for index, entry in kept]

    def read_labelled(self, request: Mapping[str, Any]) -> list[Point]:
        """``points`` with one ``point_labels`` entry for each: 1 positive, 0 negative, -1 padding.

        Raises:
            PromptError: The lists do not match, or an entry is not allowed.
        """
        points = sequence(request.get("points"), "points", "a list of points, [[i, j, k], ...]")
        labels = request.get("point_labels")
        labels = sequence(
            [1] * len(points) if labels is None else labels, "point_labels", "a list of 1 and 0"
        )
        if len(points) != len(labels):
            raise PromptError(
                f"points has {len(points)} entries and point_labels {len(labels)}; "
                "send one label for each point, 1 for positive and 0 for negative."
            )
        _check_count(len(points), "points")
        result = []
        for index, (entry, label) in enumerate(zip(points, labels, strict=True)):
            if entry is None:
                continue
            value = number(label, f"point_labels[{index}]")
            if value == _PADDING:
                continue
            if value not in _POINT_LABELS:
                raise PromptError(
                    f"point_labels[{index}] is {shown(label)}; "
                    "expected 1 (positive), 0 (negative) or -1 (padding)."
                )
            result.append(self._one(entry, f"points[{index}]", _POINT_LABELS[value]))
        return result

    def _one(self, entry: Any, name: str, positive: bool) -> Point:
        values = vector(entry, name, (2, 3), "one point, [i, j, k] in a volume or [x, y] in a 2-D image")
        name = f"{name} = {shown(list(entry))}"
        if len(values) == 2:
            x, y = self._grid.local(*values)
            return self._grid.point(self._grid.ijk(x, y, self._option.index(name)), name, positive)
        shift = self._grid.ijk(*self._grid.offset, 0.0)
        i, j, k = (value - by for value, by in zip(values, shift, strict=True))
        return self._grid.point((i, j, k), name, positive)


def _check_count(count: int, name: str) -> None:
    if count > MAX_POINTS:
        raise PromptError(f"{name} has {count} points; at most {MAX_POINTS} are allowed in one list.")


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
    """A list of boxes (``read_box``), each on one slice; None entries are left out.

    Raises:
        PromptError: An entry is no such box, has no area, or lies outside the image.
    """
    entries = sequence(value, name, f"a list of boxes, each {_BOX}")
    kept = [(index, entry) for index, entry in enumerate(entries) if entry is not None]
    if len(kept) > MAX_BOXES:
        raise PromptError(f"{name} has {len(kept)} boxes; at most {MAX_BOXES} are allowed.")
    return [read_box(entry, f"{name}[{index}]", grid) for index, entry in kept]


def read_box(value: Any, name: str, grid: Grid) -> BoxRequest:
    """One box [x0, y0, x1, y1] or [x0, y0, x1, y1, k], its corners in any order; or an object with its slice.

    Raises:
        PromptError: It is no such box, has no area, or lies outside the image.
    """
    if isinstance(value, Mapping):
        if value.get("box") is None:
            raise PromptError(f"{name} is {shown(dict(value))}; expected {_BOX}.")
        corners = vector(value["box"], f"{name}.box", (4,), _BOX)
        index = value.get("slice")
        value = corners if index is None else [*corners, number(index, f"{name}.slice")]
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
