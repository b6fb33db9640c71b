"""Labels on the grid of the image that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabelMap:
    """What a person drew on one image.

    Attributes:
        array: uint8 or uint16 (I, J, K) on the image's own grid, read-only, first axis fastest in memory;
            0 is background and each other value is one object.
        names: class name of every value that is present; objects of one class share it. Empty where nothing
            is drawn: somebody looked, and there was nothing.
    """

    array: NDArray
    names: dict[int, str]
