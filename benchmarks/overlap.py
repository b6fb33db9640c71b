"""Dice's coefficient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|): 1 for equal masks, two empty ones included, 0 for masks that do not touch.

    Raises:
        ValueError: the masks have different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks of the shapes {first.shape} and {second.shape} cannot be compared")
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0
