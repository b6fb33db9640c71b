"""What two masks must have in common before they are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def check_pair(first: Mask, second: Mask) -> None:
    """Refuses two masks that cannot be compared.

    Raises:
        ValueError: one is not bool, or their shapes differ.
    """
    for mask in (first, second):
        if mask.dtype != np.bool_:
            raise ValueError(f"a mask of {mask.dtype} is not a mask: compare bool arrays, such as mask > 0")
    if first.shape != second.shape:
        raise ValueError(
            f"masks of the shapes {first.shape} and {second.shape} cannot be compared: "
            "put them on one grid first"
        )
