"""The image's voxels and slices, and the options that choose: axis, location, slice, slice_range."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import PromptError
from lib.prompts.parsing.values import number, shown, vector, whole
from lib.prompts.types import Point
from lib.transforms.orientation import in_plane_axes, slice_index_from_offset

Range = tuple[int, int]

_AXIS_NAMES = "ijk"


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
