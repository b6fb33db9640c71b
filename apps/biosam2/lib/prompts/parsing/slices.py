"""Which slice is meant: ``slice`` and ``slice_range``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.errors import PromptError
from lib.prompts.parsing.grid import Grid
from lib.prompts.parsing.values import number, vector, whole
from lib.transforms.orientation import slice_index_from_offset

Range = tuple[int, int]


@dataclass(frozen=True)
class SliceOption:
    """The request's ``slice``: the index of a slice; beside a ROI of six numbers, a millimetre offset.

    3D Slicer alone sends it beside such a ROI, and then it is the distance of the displayed slice from the
    world's origin, rounded and without its sign.

    Attributes:
        value: The number that was sent, or None.
        grid: The image.
    """

    value: float | None
    grid: Grid

    def index(self, name: str) -> int:
        """The slice as an index, for a prompt that does not say its own; an only slice needs no telling.

        Args:
            name: The prompt that asks, for the error message.

        Raises:
            PromptError: It was not sent, or the image has no such slice.
        """
        if self.value is None:
            if self.grid.count == 1:
                return 0
            raise PromptError(
                f"{name} does not say its slice, and {self.grid.slices_text}; "
                "send a third coordinate, or `slice` with the slice's index."
            )
        index = whole(self.value, "slice")
        if not 0 <= index < self.grid.count:
            raise PromptError(f"slice is {self.value:g}, but {self.grid.slices_text}.")
        return index

    def within(self, bound: Range) -> int:
        """The slice that is meant inside a ROI's ``[first, stop)``; its middle one when ``slice`` is outside.

        The number is tried as a millimetre offset, with either sign, and then as an index.
        """
        if self.value is not None:
            for index in (self._from_millimetres(bound), whole(self.value, "slice")):
                if bound[0] <= index < bound[1]:
                    return index
        return (bound[0] + bound[1] - 1) // 2

    def _from_millimetres(self, bound: Range) -> int:
        """The slice at the offset, or one beside the bound where it is outside or the affine is not known."""
        before, behind = bound[0] - 1, bound[1]
        if self.value is None or self.grid.affine is None:
            return before
        affine = np.array(self.grid.affine, dtype=float)
        affine[:3, 3] += before * affine[:3, self.grid.axis]
        return before + slice_index_from_offset(self.value, affine, self.grid.axis, behind + 1 - before)


def read_slice(request: Mapping[str, Any], grid: Grid) -> SliceOption:
    """The request's ``slice``; null (Slicer sends it) is none.

    Raises:
        PromptError: It is no number.
    """
    value = request.get("slice")
    return SliceOption(None if value is None else number(value, "slice"), grid)


def read_slice_range(request: Mapping[str, Any], grid: Grid) -> Range | None:
    """The request's ``slice_range`` [lo, hi), or None.

    Raises:
        PromptError: It is no such pair, or not inside the image.
    """
    value = request.get("slice_range")
    if value is None or (isinstance(value, list | tuple) and not value):
        return None
    expected = "two slices [lo, hi), hi not included"
    low, high = (whole(entry, "slice_range") for entry in vector(value, "slice_range", (2,), expected))
    if not 0 <= low < high <= grid.count:
        raise PromptError(
            f"slice_range is [{low}, {high}]; expected 0 <= lo < hi <= {grid.count}, for {grid.slices_text}."
        )
    return low, high
