"""Where a person clicks next."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

# Away from an object without an error to correct, a person confirms what is outside.
OUTSIDE = 6


def deepest(mask: np.ndarray) -> list[int]:
    """The pixel ``[i, j]`` of a mask that is farthest from its outline."""
    depth = _depth(mask)
    i, j = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return [int(i), int(j)]


def correction(mask: np.ndarray, truth: np.ndarray, label: str) -> tuple[str, list[int]]:
    """The row of the labels and the pixel ``[i, j]`` that correct the largest error of a slice.

    Args:
        mask: bool ``(I, J)``.
        truth: bool ``(I, J)``.
        label: the object's row.
    """
    depth = {
        "background": _depth(mask & ~truth),
        label: _depth(truth & ~mask),
    }
    row = max(depth, key=lambda name: float(depth[name].max()))
    if depth[row].max() <= 1:
        # No more than the outline's pixels differ.
        row = "background"
        depth[row] = -np.abs(distance_transform_edt(~truth) - OUTSIDE)
    i, j = np.unravel_index(int(np.argmax(depth[row])), mask.shape)
    return row, [int(i), int(j)]


def _depth(mask: np.ndarray) -> np.ndarray:
    """Distance to the outline, in pixels."""
    return np.asarray(distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1])
