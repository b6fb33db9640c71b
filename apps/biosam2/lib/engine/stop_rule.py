"""Tells from the areas of its masks when an object that is followed through a volume has ended."""

from __future__ import annotations

# Slices in a row on which nothing is found. One or two are missed by noise alone.
ABSENT_SLICES = 3

# Below this share of its largest area an object counts as tapered. A ball of ten slices is there on its last.
TAPERED = 0.25

# A tapered object that is larger than this many times its smallest area is another one.
REGROWN = 1.5

# Below this share of its largest area an object is expected to go on shrinking. One that shrinks by less than
# the share SLOW of what an ellipsoid would, on SLOW_SLICES in a row and on a tenth of those since its largest
# area, is another one. From slice to slice it keeps the share KEPT of its area at least.
SMALL = 0.5
SLOW, KEPT = 0.2, 0.9
SLOW_SLICES = 3


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
    """

    def __init__(self, area: int):
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
        tapered = self._smallest < TAPERED * self._largest
        self._since_largest += 1
        if area == 0:
            self._absent += 1
            return tapered or self._absent >= ABSENT_SLICES
        self._slow = self._slow + 1 if self._is_slow(area) else 0
        regrown = tapered and area > REGROWN * self._smallest
        self._absent = 0
        self._previous = area
        if area > self._largest:
            self._largest = self._smallest = area
            self._since_largest = 0
        self._smallest = min(self._smallest, area)
        return regrown or self._slow >= max(SLOW_SLICES, self._since_largest // 10)

    def _is_slow(self, area: int) -> bool:
        """Whether a small object shrinks much less than an ellipsoid that has come from the largest area."""
        if area >= SMALL * self._largest:
            return False
        share = area / self._largest
        # Its area n slices from the largest is 1 - (n / N)^2, and shrinks by 2 n / N^2 from slice to slice.
        shrinking = 2 * (1 - share) / (share * self._since_largest)
        return area >= max(KEPT, 1 - SLOW * shrinking) * self._previous
