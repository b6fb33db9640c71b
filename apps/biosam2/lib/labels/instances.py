"""Separate pieces of one class in a 2-D image, which are objects that nobody numbered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.errors import LabelError
from lib.labels.values import MOST_OBJECTS

# Fewer pieces of one class are one object in parts, such as two lungs or an organ cut by a vessel.
LEAST_PIECES = 3
# A piece is a speck, the slip of a brush, below so many pixels,
SPECK_PIXELS = 5
# or below that share of the typical piece. In three electron micrographs, with cells of up to 23,828 pixels,
# it takes pieces of up to 10 and leaves one of 12.
SPECK_SHARE = 0.003


def split_instances(array: NDArray) -> NDArray | None:
    """Numbers the pieces of a 2-D label of one class, where it has so many that they must be objects.

    A piece is connected by edges; cells that touch by a corner are two. Specks become background.

    Args:
        array: (I, J, 1), with one value besides 0.

    Returns:
        uint8 or uint16 of the same shape, pieces as 1, 2, 3 ...; None where there are fewer than three.

    Raises:
        LabelError: for more than 65535 pieces.
    """
    pieces, count = ndimage.label(array[:, :, 0] != 0)
    if count < LEAST_PIECES:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = np.flatnonzero(sizes >= max(SPECK_PIXELS, SPECK_SHARE * _typical(sizes)))
    if len(kept) < LEAST_PIECES:
        return None
    if len(kept) > MOST_OBJECTS:
        raise LabelError(
            f"it has {len(kept)} separate pieces and {MOST_OBJECTS} objects are the limit: crop it"
        )
    dtype = np.uint8 if len(kept) <= np.iinfo(np.uint8).max else np.uint16
    numbers = np.zeros(count + 1, dtype=dtype)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return np.asfortranarray(numbers[pieces][:, :, None])


def _typical(sizes: NDArray) -> float:
    """Size of the piece in which the middle one of all pixels lies: many specks do not make it small."""
    ascending = np.sort(sizes)
    return float(ascending[np.searchsorted(np.cumsum(ascending), ascending.sum() / 2)])
