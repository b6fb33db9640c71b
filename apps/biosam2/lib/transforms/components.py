"""Largest component of a mask, and its holes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def largest_component(mask: NDArray, seeds: Iterable[Sequence[int]] | None = None) -> NDArray:
    """Keeps the largest component, or the components on which seeds lie.

    Voxels that touch by a corner are connected, so a thin oblique vessel stays whole.

    Args:
        mask: 2-D or 3-D array, bool or uint8; non-zero is the object.
        seeds: Voxel indices in the mask's axis order, such as the foreground clicks. Those off the mask or
            outside the array are ignored.

    Returns:
        Same shape and dtype, values kept, other components zero. An empty mask, or one of one component,
        is returned as it is.
    """
    box = _bounding_box(mask)
    if box is None:
        return mask
    components, count = ndimage.label(mask[box] != 0, structure=np.ones((3,) * mask.ndim))
    if count == 1:
        return mask
    kept = _seeded(components, box, seeds or ())
    if not kept:
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        kept = {int(np.argmax(sizes))}
    result = np.zeros_like(mask)
    result[box] = np.where(np.isin(components, list(kept)), mask[box], 0)
    return result


def fill_holes(mask: NDArray) -> NDArray:
    """Fills background that is enclosed on all sides: in 2-D by a ring, in 3-D by a shell.

    Args:
        mask: 2-D or 3-D array, bool or uint8 with one non-zero value.

    Returns:
        Same shape and dtype; a mask without holes is returned as it is.
    """
    box = _bounding_box(mask)
    if box is None:
        return mask
    # Labelling the background is one pass; scipy's binary_fill_holes dilates until nothing changes.
    crop = mask[box]
    background, count = ndimage.label(crop == 0)
    outside = {0}
    for axis in range(crop.ndim):
        for end in (0, -1):
            outside.update(np.unique(background.take(end, axis=axis)).tolist())
    holes = [label for label in range(1, count + 1) if label not in outside]
    if not holes:
        return mask
    result = mask.copy(order="K")
    result[box][np.isin(background, holes)] = mask.max()
    return result


def _bounding_box(mask: NDArray) -> tuple[slice, ...] | None:
    """Smallest box around the non-zero voxels; None if there are none."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not used.size:
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _seeded(components: NDArray, box: tuple[slice, ...], seeds: Iterable[Sequence[int]]) -> set[int]:
    """Labels of the components on which seeds lie."""
    found = set()
    for seed in seeds:
        local = [int(index) - side.start for index, side in zip(seed, box, strict=True)]
        if all(0 <= index < length for index, length in zip(local, components.shape, strict=True)):
            found.add(int(components[tuple(local)]))
    return found - {0}
