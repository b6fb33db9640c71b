"""Where a person clicks next."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

# Away from an object without an error to correct, a person confirms what is outside.
OUTSIDE = 6


def correction(mask: np.ndarray, truth: np.ndarray, label: str) -> tuple[str, list[int]]:
    """The row of the labels and the pixel ``[i, j]`` that correct the largest error of a slice.

    Args:
        mask: bool ``(I, J)``.
        truth: bool ``(I, J)``.
        label: the object's row.
    """
    depth = {
        "background": distance_transform_edt(np.pad(mask & ~truth, 1))[1:-1, 1:-1],
        label: distance_transform_edt(np.pad(truth & ~mask, 1))[1:-1, 1:-1],
    }
    row = max(depth, key=lambda name: float(depth[name].max()))
    if depth[row].max() <= 1:
        # No more than the outline's pixels differ.
        row = "background"
        depth[row] = -np.abs(distance_transform_edt(~truth) - OUTSIDE)
    i, j = np.unravel_index(int(np.argmax(depth[row])), mask.shape)
    return row, [int(i), int(j)]
