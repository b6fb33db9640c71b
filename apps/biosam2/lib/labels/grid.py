"""Labels from the grid of their file onto the grid of their image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from lib.errors import LabelError
from lib.images.medical_image import MedicalImage
from lib.images.nifti import read_nifti_header, states_geometry
from lib.labels.values import LabelFile

# Share of a voxel by which two grids may differ and still be one. Headers keep 32-bit floats and DICOM keeps
# decimals: over 1000 voxels that is less, and below half a voxel the nearest neighbour is the voxel itself.
SAME_GRID = 0.1
# Share of a voxel that points are moved by before their nearest voxels are asked for. Where a grid's points
# lie halfway between voxels, as with half the spacing, rounding noise would choose, for each point anew.
TIE = 1e-3


def on_image_grid(label: LabelFile, image: MedicalImage) -> NDArray:
    """Labels of a file on their image's voxels, by nearest neighbour.

    Args:
        label: uint8 or uint16 labels with their geometry.
        image: Image that they belong to.

    Returns:
        (I, J, K) of the image and the label's dtype; the label's own array if the grids are the same.

    Raises:
        LabelError: One has no geometry and the sizes differ, or the two do not overlap.
    """
    if label.affine is None or not is_placed(image):
        _require_size(label.array.shape, image)
        return label.array
    to_label = np.linalg.inv(label.affine) @ image.affine
    if label.array.shape == image.shape and _deviation(to_label, image.shape) < SAME_GRID:
        return label.array
    _require_overlap(label.array.shape, label.affine, image, to_label)
    return _nearest(label.array, to_label, image.shape)


def is_placed(image: MedicalImage) -> bool:
    """True if the image's file has a geometry: pictures have none, and NIfTI headers may have none."""
    if image.format == "nifti" and image.path.is_file():
        return states_geometry(read_nifti_header(image.path))
    return image.format != "raster"


def _require_size(shape: Sequence[int], image: MedicalImage) -> None:
    if tuple(shape) != image.shape:
        raise LabelError(
            f"it is {_size(shape)} and its image {_size(image.shape)}, and without a position in space both "
            "must be equal: export the label at the image's own size, and not turned"
        )


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape)


def _corners(shape: Sequence[int]) -> NDArray[np.float64]:
    """(8, 4) homogeneous centres of the corner voxels."""
    sides = [(0, side - 1) for side in shape[:3]]
    return np.array([(*corner, 1) for corner in itertools.product(*sides)], dtype=float)


def _deviation(to_label: NDArray, shape: Sequence[int]) -> float:
    """Largest distance between voxels of the same index, in voxels; it is reached at a corner."""
    corners = _corners(shape)
    return float(np.abs(corners @ to_label.T - corners).max())


def _require_overlap(shape: Sequence[int], affine: NDArray, image: MedicalImage, to_label: NDArray) -> None:
    """Refuses a label that the image's box does not overlap."""
    corners = _corners(image.shape) @ to_label.T
    low, high = corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)
    sides = np.array(shape)
    if (high < -0.5).any() or (low > sides - 0.5).any():
        centre = image.affine @ [*(np.array(image.shape) - 1) / 2, 1]
        own = affine @ [*(sides - 1) / 2, 1]
        apart = float(np.linalg.norm(centre[:3] - own[:3]))
        raise LabelError(
            f"it lies elsewhere in space than its image, their centres {apart:.0f} mm apart: it is the label "
            "of another image, or was saved without its position; export it again from this image"
        )


def _nearest(array: NDArray, to_label: NDArray, shape: tuple[int, int, int]) -> NDArray:
    """The label's voxel that each image voxel's centre lies in; 0 outside."""
    turn, offset = to_label[:3, :3], to_label[:3, 3] + TIE
    axes = np.argmax(np.abs(turn), axis=1)
    along = turn[range(3), axes]
    tilt = (np.abs(turn).sum(axis=1) - np.abs(along)) * max(shape)
    if sorted(axes) == [0, 1, 2] and tilt.max() < TIE:
        return _nearest_along_axes(array, axes, along, offset, shape)
    # On unit grids the transform maps indices; a voxel reaches half its size beyond its centre at the border.
    transform = sitk.AffineTransform(turn.ravel().tolist(), offset.tolist())
    grid = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    resampled = sitk.Resample(
        sitk.GetImageFromArray(array.T),
        shape,
        transform,
        sitk.sitkNearestNeighbor,
        grid.GetOrigin(),
        grid.GetSpacing(),
        grid.GetDirection(),
    )
    return np.asarray(sitk.GetArrayFromImage(resampled).T)


def _nearest_along_axes(
    array: NDArray, axes: NDArray, along: NDArray, offset: NDArray, shape: tuple[int, int, int]
) -> NDArray:
    """Same as ``_nearest`` in a tenth of the time, for parallel grids such as cropped or flipped ones.

    Args:
        array: (I, J, K) of the label.
        axes: Axis of the image parallel to each axis of the label.
        along: Label voxels per image voxel along them, negative for opposite directions.
        offset: Label voxel of the image's first voxel.
        shape: Shape of the image.
    """
    taken: list[NDArray] = []
    given = [slice(0)] * 3
    for axis, step, first in zip(axes, along, offset, strict=True):
        index = np.floor(first + step * np.arange(shape[axis]) + 0.5).astype(int)
        inside = np.flatnonzero((index >= 0) & (index < array.shape[len(taken)]))
        taken.append(index[inside])
        given[axis] = slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0)
    out = np.zeros(shape, dtype=array.dtype, order="F")
    # Turned over, so that the axis that is fastest in memory is the innermost.
    found = array.T[np.ix_(*reversed(taken))].T
    out[tuple(given)] = found.transpose(np.argsort(axes))
    return out
