"""The voxels that a request's prompts must lie on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from lib.errors import PromptError
from lib.prompts.parsing.values import shown, vector
from lib.prompts.types import Point
from lib.transforms.orientation import in_plane_axes

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
