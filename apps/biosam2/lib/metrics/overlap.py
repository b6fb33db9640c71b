"""Overlap of two masks: Dice and Jaccard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def check_pair(first: Mask, second: Mask) -> None:
    """Rejects two masks that cannot be compared.

    Raises:
        ValueError: a mask is not bool, or the shapes differ.
    """
    for mask in (first, second):
        if mask.dtype != np.bool_:
            raise ValueError(f"Masks must be bool, not {mask.dtype}: compare, for example, mask > 0")
    if first.shape != second.shape:
        raise ValueError(
            f"Masks with shapes {first.shape} and {second.shape} cannot be compared: resample to one grid"
        )


def dice(first: Mask, second: Mask) -> float:
    """2 |A and B| / (|A| + |B|), Dice 1945.

    Args:
        first: bool, any shape.
        second: bool, same shape.

    Returns:
        0 to 1. Two empty masks: 1; one empty mask: 0. (MONAI's DiceMetric returns NaN for an empty ground
        truth unless ``ignore_empty=False``, which equals the rule here.)

    Raises:
        ValueError: a mask is not bool, or the shapes differ.
    """
    check_pair(first, second)
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2.0 * np.count_nonzero(first & second) / total if total else 1.0


def jaccard(first: Mask, second: Mask) -> float:
    """|A and B| / |A or B|, also called intersection over union, or J in DAVIS.

    Args:
        first: bool, any shape.
        second: bool, same shape.

    Returns:
        0 to 1. Two empty masks: 1; one empty mask: 0.

    Raises:
        ValueError: a mask is not bool, or the shapes differ.
    """
    check_pair(first, second)
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0
