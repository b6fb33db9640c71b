"""Tells from the areas of its masks when an object that is followed through a volume has ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StopLimits:
    """Limits of a :class:`StopRule`.

    Attributes:
        absent: Slices in a row on which nothing is found. One or two are missed by noise alone.
        tapered: Share of its largest area below which an object counts as tapered. A ball of ten slices is
            there on its last.
        regrown: A tapered object that is larger than this many times its smallest area is another one.
        small: Share of its largest area below which an object is expected to go on shrinking.
        slow: A small object that shrinks by less than this share of what an ellipsoid would, on
            ``slow_slices`` in a row and on a tenth of those since its largest area, is another one.
        kept: Share of its area that an object keeps from slice to slice at least where it shrinks slowly.
        slow_slices: See ``slow``.
    """

    absent: int = 3
    tapered: float = 0.25
    regrown: float = 1.5
    small: float = 0.5
    slow: float = 0.2
    kept: float = 0.9
    slow_slices: int = 3


class StopRule:
    """Watches the area of one object in one direction, and tells when the object has ended.

    A network that finds nothing more of an object often goes on with a neighbour that looks alike. Signs are,
    from the areas of the masks alone: nothing was found on some slices in a row; the object had shrunk to a
    small part of itself, as all do towards their end, and then grows again; or it stays at half of its size
    or less.

    What was found is not compared with the prompted slices: far from them an aorta was as unlike itself as
    its neighbours are.

    Args:
        area: Pixels of the mask that the direction starts from.
        limits: Limits of the signs.
    """

    def __init__(self, area: int, limits: StopLimits | None = None):
        self._limits = limits or StopLimits()
        self._largest = area
        self._smallest = area
        self._previous = area
        self._absent = 0
        self._slow = 0
        self._since_largest = 0

    def reached(self, area: int) -> bool:
        """Takes in the next slice.

        Args:
            area: Pixels of the mask there; 0 where the network does not see the object.

        Returns:
            Whether the object has ended before this slice, so that what was found there is not it.
        """
        limits = self._limits
        tapered = self._smallest < limits.tapered * self._largest
        self._since_largest += 1
        if area == 0:
            self._absent += 1
            return tapered or self._absent >= limits.absent
        self._slow = self._slow + 1 if self._is_slow(area) else 0
        regrown = tapered and area > limits.regrown * self._smallest
        self._absent = 0
        self._previous = area
        if area > self._largest:
            self._largest = self._smallest = area
            self._since_largest = 0
        self._smallest = min(self._smallest, area)
        return regrown or self._slow >= max(limits.slow_slices, self._since_largest // 10)

    def _is_slow(self, area: int) -> bool:
        """Whether a small object shrinks much less than an ellipsoid that has come from the largest area."""
        if area >= self._limits.small * self._largest:
            return False
        share = area / self._largest
        # Its area n slices from the largest is 1 - (n / N)^2, and shrinks by 2 n / N^2 from slice to slice.
        shrinking = 2 * (1 - share) / (share * self._since_largest)
        return area >= max(self._limits.kept, 1 - self._limits.slow * shrinking) * self._previous
