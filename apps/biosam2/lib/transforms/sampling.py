"""Samples of large arrays, choices of indices, seeded random generators, and a check for NaN."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError

# The percentiles of 200,000 voxels lie within 0.05 of the volume's own, and sorting them takes milliseconds.
SAMPLE_SIZE = 200_000
# Voxels that are looked at together: 4 MiB of booleans.
CHUNK = 1 << 22


def sorted_sample(array: NDArray) -> NDArray:
    """Every n-th value of an array in memory order, sorted; all of them if there are few.

    The step is the same for the same shape. It shares no factor with any side of the array: a step of 512
    through rows of 512 would see one column only.

    Args:
        array: Array of any shape, at least one element.

    Returns:
        1-D, of the array's dtype, about SAMPLE_SIZE values, in ascending order.
    """
    step = max(1, math.ceil(array.size / SAMPLE_SIZE))
    while step > 1 and any(math.gcd(step, side) > 1 for side in array.shape):
        step += 1
    return np.sort(array.ravel(order="K")[::step])


def require_finite(array: NDArray) -> None:
    """Refuses an array with NaN or infinite values. Checks every value, in chunks.

    Raises:
        ImageError: With the number of such values.
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


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0 to ``count`` - 1, in ascending order: the middles of equal shares.

    The ends, where objects of a volume are cut, are left out if there are more indices than are asked for.
    """
    wanted = min(count, most)
    return [int((step + 0.5) * count / wanted) for step in range(wanted)]


def doubtful(confidence: Mapping[int, float], known: Collection[int], most: int) -> list[int]:
    """Indices that most deserve a look, spread over the extent, the most deserving first.

    One after the other, each is the index with the largest (1 - confidence) * min(1, d / s): d is the
    distance to the nearest known or chosen index, and s the extent divided by ``most``. Of equals the first
    counts.

    Args:
        confidence: Confidence by index, 0 to 1.
        known: Indices that need no look.
        most: Number of indices at most. Neighbours of known or chosen indices are left out.
    """
    chosen: list[int] = []
    spacing = max(2.0, (max(confidence, default=0) - min(confidence, default=0) + 1) / most)
    for _ in range(most):
        taken = [*known, *chosen]
        worth = {}
        for index, value in confidence.items():
            distance = min((abs(index - other) for other in taken), default=spacing)
            if distance > 1 and value < 1:
                worth[index] = (1 - value) * min(1.0, distance / spacing)
        if not worth:
            break
        chosen.append(max(worth, key=lambda index: (worth[index], -index)))
    return chosen


def seeded_rng(text: str) -> np.random.Generator:
    """A random generator with the SHA-256 of a text as seed: equal on every machine and in every process."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
