"""Looking at the intensities of a large array cheaply: a sample of them, and a complete check for NaN."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError

# The percentiles of 200,000 voxels lie within 0.05 of the volume's own, and sorting them takes milliseconds.
SAMPLE_SIZE = 200_000
# Voxels that are looked at together: 4 MiB of booleans.
CHUNK = 1 << 22


def sorted_sample(array: NDArray) -> NDArray:
    """Every n-th value of an array in memory order, sorted; all of them where there are few.

    The step is the same for the same shape. It shares no factor with any side of the array: a step of 512
    through rows of 512 would see one column only.

    Args:
        array: any shape, at least one element.

    Returns:
        1-D, of the array's dtype, about SAMPLE_SIZE values, in ascending order.
    """
    step = max(1, math.ceil(array.size / SAMPLE_SIZE))
    while step > 1 and any(math.gcd(step, side) > 1 for side in array.shape):
        step += 1
    return np.sort(array.ravel(order="K")[::step])


def require_finite(array: NDArray) -> None:
    """Refuses an array with NaN or infinite values. Looks at every one, in chunks.

    Raises:
        ImageError: with the number of such values.
    """
    if not np.issubdtype(array.dtype, np.inexact):
        return
    flat = array.ravel(order="K")
    nan = infinite = 0
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        if not np.isfinite(chunk).all():
            nan += int(np.isnan(chunk).sum())
            infinite += int(np.isinf(chunk).sum())
    if nan or infinite:
        raise ImageError(
            f"the image has {nan} NaN and {infinite} infinite values among {flat.size}: "
            "replace them by a number, for example the background's, and load it again"
        )
