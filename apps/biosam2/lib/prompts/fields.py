"""Fields of a request: numbers, the image's grid with the options that choose slices, points and boxes.

Whatever is not as it should be is a ``PromptError`` that names the field, its value and what is expected.
"""

import math
import numbers
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import PromptError
from lib.prompts.types import Box, Point
from lib.transforms.frames import in_plane_axes, slice_index_from_offset

Range = tuple[int, int]

MAX_POINTS = 1000  # in one list: no person clicks more, and the decoder's time and memory grow with each
MAX_BOXES = MAX_POINTS
_AXIS_NAMES = "ijk"
_POINT_LABELS = {1.0: True, 0.0: False}
_PADDING = -1.0  # VISTA-3D pads its lists with this label
_ROI = "[x0, y0, x1, y1], or pairs for each axis [i0, i1, j0, j1, k0, k1]"
_BOX = '[x0, y0, x1, y1], [x0, y0, x1, y1, k] or {"slice": k, "box": [x0, y0, x1, y1]}'
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 3


def shown(value: Any) -> str:
    """The value as text for an error message, shortened: a request may be 50 MB."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return f"a {type(value).__name__} too long to show"


def number(value: Any, name: str) -> float:
    """A finite number; booleans and numeric text are refused, for they are a client's mistake.

    Raises:
        PromptError: It is none.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
        if math.isfinite(result):
            return result
    raise PromptError(f"{name} is {shown(value)}; expected a finite number.")


def flag(value: Any, name: str) -> bool:
    """A yes or no; text is refused, for "false" would be a yes.

    Raises:
        PromptError: It is neither.
    """
    if isinstance(value, bool | np.bool_ | int) and value in (0, 1):
        return bool(value)
    raise PromptError(f"{name} is {shown(value)}; expected true or false.")


def sequence(value: Any, name: str, expected: str) -> Sequence[Any]:
    """The list itself, empty for None.

    Raises:
        PromptError: It is no list; the message says ``expected``.
    """
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return value
    raise PromptError(f"{name} is {shown(value)}; expected {expected}.")


def vector(value: Any, name: str, lengths: tuple[int, ...], expected: str) -> tuple[float, ...]:
    """A list of finite numbers whose length is one of ``lengths``.

    Raises:
        PromptError: It is none; the message says ``expected``.
    """
    entries = sequence(value, name, expected)
    if len(entries) not in lengths or any(isinstance(entry, list | tuple | dict) for entry in entries):
        raise PromptError(f"{name} is {shown(value)}; expected {expected}.")
    return tuple(number(entry, f"{name}[{index}]") for index, entry in enumerate(entries))


def whole(value: Any, name: str) -> int:
    """A finite number, rounded to the nearest integer (halves go up).

    Raises:
        PromptError: It is no number.
    """
    return math.floor(number(value, name) + 0.5)


@dataclass(frozen=True)
class Grid:
    """The image that is prompted, and how it is cut into slices.

    Attributes:
        shape: Voxels (I, J, K).
        affine: ``(4, 4)`` voxel index to RAS millimetres, or None where it is not known.
        axis: Slice axis.
        offset: Place (x, y) of the image's first pixel in the client's coordinates; taken off every prompt.
    """

    shape: tuple[int, int, int]
    affine: NDArray | None = None
    axis: int = 2
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.shape[self.axis]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a slice in pixels."""
        x, y = in_plane_axes(self.axis)
        return self.shape[x], self.shape[y]

    @property
    def slices_text(self) -> str:
        """The allowed slices, for an error message."""
        if self.count == 1:
            return "the image has one slice, 0"
        return f"the image has {self.count} slices along axis {self.axis}, 0 to {self.count - 1}"

    def local(self, x: float, y: float) -> tuple[float, float]:
        """In-plane coordinates of the client in those of the image: ``offset`` taken off."""
        return x - self.offset[0], y - self.offset[1]

    def ijk(self, x: float, y: float, index: float) -> tuple[float, float, float]:
        """In-plane coordinates and a slice as a voxel index."""
        result = [0.0, 0.0, 0.0]
        x_axis, y_axis = in_plane_axes(self.axis)
        result[x_axis], result[y_axis], result[self.axis] = x, y, index
        return result[0], result[1], result[2]

    def point(self, ijk: tuple[float, ...], name: str, positive: bool) -> Point:
        """A point inside the volume; its slice is rounded to a whole one, its place on the slice is kept.

        A coordinate up to half a voxel before the first centre, or less than one behind the last, is still in
        the image for a client that counts from pixel corners; it moves onto that centre.

        Raises:
            PromptError: It is outside.
        """
        inside = []
        for axis, (value, count) in enumerate(zip(ijk, self.shape, strict=True)):
            value = math.floor(value + 0.5) if axis == self.axis else value
            if not -0.5 <= value < count or (axis == self.axis and value < 0):
                raise PromptError(
                    f"{name} is outside the image: its {_AXIS_NAMES[axis]} is {value:g}, "
                    f"allowed are 0 to {count - 1}."
                )
            inside.append(float(min(max(value, 0.0), count - 1)))
        return Point(inside[0], inside[1], inside[2], positive)


def read_grid(
    request: Mapping[str, Any], shape: tuple[int, int, int], affine: NDArray | None, is_2d: bool
) -> Grid:
    """The grid with the request's ``axis`` and ``location``.

    Args:
        request: ``axis`` 0, 1 or 2 (2 when absent); ``location`` [x, y] of a patch in a larger image.
        shape: Voxels (I, J, K).
        affine: ``(4, 4)`` voxel index to RAS millimetres, or None.
        is_2d: True for an image that is no volume.

    Raises:
        PromptError: An option has a value that is not allowed.
    """
    axis = request.get("axis")
    axis = 2 if axis is None else axis
    if isinstance(axis, bool) or not isinstance(axis, int | float) or axis not in (0, 1, 2):
        raise PromptError(f"axis is {shown(axis)}; expected 0, 1 or 2.")
    if is_2d and axis != 2:
        raise PromptError(f"axis is {axis}, but the image is 2-D and has one slice; leave axis out.")
    return Grid(shape, affine, int(axis), _read_location(request.get("location")))


def _read_location(value: Any) -> tuple[float, float]:
    if value is None or (isinstance(value, list | tuple) and not value):
        return 0.0, 0.0
    x, y = vector(value, "location", (2,), "the patch's place [x, y]")
    # DSA says "the whole slide" with -1, -1.
    return (0.0, 0.0) if (x, y) == (-1.0, -1.0) else (x, y)


@dataclass(frozen=True)
class SliceOption:
    """The request's ``slice``: the index of a slice; beside a ROI of six numbers, a millimetre offset.

    3D Slicer alone sends it beside such a ROI, and then it is the distance of the displayed slice from the
    world's origin, rounded and without its sign.

    Attributes:
        value: The number that was sent, or None.
        grid: The image.
    """

    value: float | None
    grid: Grid

    def index(self, name: str) -> int:
        """The slice as an index, for a prompt that does not say its own; an only slice needs no telling.

        Args:
            name: The prompt that asks, for the error message.

        Raises:
            PromptError: It was not sent, or the image has no such slice.
        """
        if self.value is None:
            if self.grid.count == 1:
                return 0
            raise PromptError(
                f"{name} does not say its slice, and {self.grid.slices_text}; "
                "send a third coordinate, or `slice` with the slice's index."
            )
        index = whole(self.value, "slice")
        if not 0 <= index < self.grid.count:
            raise PromptError(f"slice is {self.value:g}, but {self.grid.slices_text}.")
        return index

    def within(self, bound: Range) -> int:
        """The slice that is meant inside a ROI's ``[first, stop)``; its middle one when ``slice`` is outside.

        The number is tried as a millimetre offset, with either sign, and then as an index.
        """
        if self.value is not None:
            for index in (self._from_millimetres(bound), whole(self.value, "slice")):
                if bound[0] <= index < bound[1]:
                    return index
        return (bound[0] + bound[1] - 1) // 2

    def _from_millimetres(self, bound: Range) -> int:
        """The slice at the offset, or one beside the bound where it is outside or the affine is not known."""
        before, behind = bound[0] - 1, bound[1]
        if self.value is None or self.grid.affine is None:
            return before
        affine = np.array(self.grid.affine, dtype=float)
        affine[:3, 3] += before * affine[:3, self.grid.axis]
        return before + slice_index_from_offset(self.value, affine, self.grid.axis, behind + 1 - before)


def read_slice(request: Mapping[str, Any], grid: Grid) -> SliceOption:
    """The request's ``slice``; null (Slicer sends it) is none.

    Raises:
        PromptError: It is no number.
    """
    value = request.get("slice")
    return SliceOption(None if value is None else number(value, "slice"), grid)


def read_slice_range(request: Mapping[str, Any], grid: Grid) -> Range | None:
    """The request's ``slice_range`` [lo, hi), or None.

    Raises:
        PromptError: It is no such pair, or not inside the image.
    """
    value = request.get("slice_range")
    if value is None or (isinstance(value, list | tuple) and not value):
        return None
    expected = "two slices [lo, hi), hi not included"
    low, high = (whole(entry, "slice_range") for entry in vector(value, "slice_range", (2,), expected))
    if not 0 <= low < high <= grid.count:
        raise PromptError(
            f"slice_range is [{low}, {high}]; expected 0 <= lo < hi <= {grid.count}, for {grid.slices_text}."
        )
    return low, high


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
