"""Overlap of two masks: Dice and Jaccard."""

from __future__ import annotations

import numpy as np

from lib.metrics.masks import Mask, check_pair


def dice(first: Mask, second: Mask) -> float:
    """2 |A and B| / (|A| + |B|), Dice 1945.

    Args:
        first: bool, of any shape.
        second: bool, of the same shape.

    Returns:
        0 to 1. Two empty masks agree: 1; an empty one and another: 0. (MONAI's DiceMetric has NaN for
        an empty truth unless ``ignore_empty=False``, which is the rule here.)

    Raises:
        ValueError: one is not bool, or their shapes differ.
    """
    check_pair(first, second)
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2.0 * np.count_nonzero(first & second) / total if total else 1.0


def jaccard(first: Mask, second: Mask) -> float:
    """|A and B| / |A or B|, also called intersection over union, and J by DAVIS.

    Args:
        first: bool, of any shape.
        second: bool, of the same shape.

    Returns:
        0 to 1. Two empty masks agree: 1; an empty one and another: 0.

    Raises:
        ValueError: one is not bool, or their shapes differ.
    """
    check_pair(first, second)
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0
