"""Labels in memory, and the numbers of a file as labels: whole, not negative, in the smallest type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib.errors import LabelError
from lib.images.medical_image import MedicalImage


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Label of one image, on its grid.

    Attributes:
        array: uint8 or uint16 (I, J, K) on the image's own grid, read-only, first axis fastest in memory;
            0 is background and each other value is one object.
        names: Class name of every value that is present; objects of one class share it. Empty if nothing is
            drawn, as in a label saved to state that nothing was found.
    """

    array: NDArray
    names: dict[int, str]


# Voxels of a label file that are opened whatever the size of its image, which may be cut out of a larger one:
# 512 x 512 x 1024.
_ROOM = 1 << 28


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Labels as they lie in their file.

    Attributes:
        array: (I, J, K) of any number type, 0 for background.
        affine: (4, 4), voxel index to RAS millimetres; None if the file has no geometry.
        names: Class names in the file by value; empty if there are none.
        has_instances: True if objects of one class have values of their own.
    """

    array: NDArray
    affine: NDArray[np.float64] | None
    names: dict[int, str] = field(default_factory=dict)
    has_instances: bool = False


def most_voxels(image: MedicalImage) -> int:
    """Limit of voxels of an image's label file: 3D Slicer can draw on a finer grid than the image's."""
    return max(_ROOM, 8 * image.shape[0] * image.shape[1] * image.shape[2])


# Largest uint16. No viewer numbers more objects.
MOST_OBJECTS = 65535
# Scale factors of NIfTI and resampling leave whole numbers off by less than that.
WHOLE = 1e-3
# Beyond it a float64 skips whole numbers, so that two labels would become one.
_LARGEST_FLOAT = 2.0**53
# Voxels that are looked at together: their copies in wider types stay small beside the label.
_CHUNK = 1 << 20


def as_labels(array: NDArray) -> tuple[NDArray, dict[int, int]]:
    """The same labels as uint8 or uint16, first axis fastest.

    If a value is beyond 65535, all are renumbered 1, 2, 3 ... in ascending order.

    Args:
        array: Array of any shape, of booleans, integers or floats.

    Returns:
        Labels of the same shape, and for each value that is present its value in the file.

    Raises:
        LabelError: NaN, infinite, fractional or negative numbers, or more than 65535 different ones.
    """
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype.kind not in "uif":
        raise LabelError(f"voxels of type {array.dtype} are no labels: save whole numbers, 0 for background")
    present = present_values(array)
    if present and present[0] < 0:
        raise LabelError(
            f"it has negative values, down to {present[0]}: 0 is background and labels count from 1; give "
            "these voxels a value of their own, or 0"
        )
    if not present or present[-1] <= MOST_OBJECTS:
        return _lean(array, present[-1] if present else 0), {value: value for value in present}
    numbered = np.empty(array.shape, dtype=np.uint16, order="F")
    table = np.array([0, *present])
    flat, start = numbered.ravel(order="K"), 0
    for chunk in _chunks(array):
        flat[start : start + chunk.size] = np.searchsorted(table, np.rint(chunk))
        start += chunk.size
    return _lean(numbered, len(present)), dict(enumerate(present, 1))


def present_values(array: NDArray) -> list[int]:
    """Values of an array other than 0, ascending.

    Raises:
        LabelError: Fractional numbers, or more than 65535 values.
    """
    found: set[int] = set()
    for chunk in _chunks(array):
        whole = _whole(chunk)
        if int(whole.min()) >= 0 and int(whole.max()) <= MOST_OBJECTS:
            # Counting is ten times faster than sorting, and nearly every label is so.
            found.update(np.flatnonzero(np.bincount(whole.astype(np.intp, copy=False))).tolist())
        else:
            found.update(np.unique(whole).tolist())
        if len(found - {0}) > MOST_OBJECTS:
            raise LabelError(
                f"it has more than {MOST_OBJECTS} different values: is it the image instead of its label?"
            )
    return sorted(found - {0})


def _chunks(array: NDArray) -> Iterator[NDArray]:
    """Parts of the array, flat, first axis fastest."""
    flat = array.ravel(order="F")
    return (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))


def _lean(array: NDArray, highest: int) -> NDArray:
    """Labels in the smaller of uint8 and uint16 that holds them; a copy only where something changes."""
    dtype = np.dtype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
    if array.dtype.kind != "f":
        return np.asfortranarray(array, dtype=dtype)
    lean = np.empty(array.shape, dtype=dtype, order="F")
    return np.rint(array, out=lean, casting="unsafe")


def _whole(chunk: NDArray) -> NDArray:
    """Floats as integers; integers as they are."""
    if chunk.dtype.kind != "f":
        return chunk
    if not np.isfinite(chunk).all():
        raise LabelError("it has NaN or infinite values: replace them by 0 and save it again")
    rounded = np.rint(chunk)
    off = chunk[np.abs(chunk - rounded) > WHOLE]
    if off.size:
        raise LabelError(
            f"it has values that are no whole numbers, such as {float(off[0]):.4g}: probabilities and grey "
            "levels are no labels; threshold them and save whole numbers"
        )
    if float(np.abs(rounded).max()) > _LARGEST_FLOAT:
        raise LabelError(
            f"it has values as far from 0 as {float(np.abs(rounded).max()):.4g}: number its labels from 1"
        )
    return rounded.astype(np.int64)


def paint_order(sizes: Sequence[float]) -> list[int]:
    """Order in which objects are painted over each other: the largest first, equal ones as in the file.

    A voxel in two objects belongs to the smaller one: a lesion stays whole in its organ whichever was drawn
    first. Of two objects of one size it belongs to the later one.

    Args:
        sizes: Voxels, or area, of each object in the order of the file.

    Returns:
        Indices of all objects.
    """
    return sorted(range(len(sizes)), key=lambda index: -sizes[index])
