"""Tells from the areas of its masks when an object that is followed through a volume has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lib.settings import MemoryPolicy


@dataclass(frozen=True)
class StopLimits:
    """Limits of a :class:`StopRule`.

    Attributes:
        absent: Slices in a row on which nothing is found. One or two are missed by noise alone.
        tapered: Share of its largest area below which an object counts as tapered. A ball of ten slices is
            there on its last.
        regrown: A tapered object that is larger than this many times its smallest area is another one.
        steady: A tapered object that keeps at least this share of its area from slice to slice,
            ``steady_slices`` times in a row, is another one.
        steady_slices: See ``steady``.
    """

    absent: int = 3
    tapered: float = 0.25
    regrown: float = 1.5
    steady: float = 0.9
    steady_slices: int = 3


STOP_LIMITS: Mapping[MemoryPolicy, StopLimits] = {
    "fifo": StopLimits(),
    "pruned": StopLimits(),
    "confidence": StopLimits(),
}


class StopRule:
    """Watches the area of one object in one direction, and tells when the object has ended.

    A network that finds nothing more of an object often goes on with a neighbour that looks alike. Three
    signs tell, from the areas of the masks alone: nothing was found on some slices in a row; the object had
    shrunk to a small part of itself, as all do towards their end, and then grows again; or it stays at that
    size.

    Args:
        area: Pixels of the mask that the direction starts from.
        limits: Limits of the signs.
    """

    def __init__(self, area: int, limits: StopLimits):
        self._limits = limits
        self._largest = area
        self._smallest = area
        self._previous = area
        self._absent = 0
        self._steady = 0

    def reached(self, area: int) -> bool:
        """Takes in the next slice.

        Args:
            area: Pixels of the mask there; 0 where the network does not see the object.

        Returns:
            Whether the object has ended before this slice, so that what was found there is not it.
        """
        limits = self._limits
        tapered = self._smallest < limits.tapered * self._largest
        if area == 0:
            self._absent += 1
            return tapered or self._absent >= limits.absent
        steady = tapered and area >= limits.steady * self._previous
        self._steady = self._steady + 1 if steady else 0
        regrown = tapered and area > limits.regrown * self._smallest
        self._absent = 0
        self._previous = area
        if area > self._largest:
            self._largest = self._smallest = area
        self._smallest = min(self._smallest, area)
        return regrown or self._steady >= limits.steady_slices
