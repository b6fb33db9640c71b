"""When a followed object has ended.

A network that finds nothing more of an object often goes on with a neighbour that looks alike. Three signs
tell, from the areas of the masks alone: nothing was found on some slices in a row; the object had shrunk to a
small part of itself, as all do towards their end, and then grows again; or it stays at that size.
"""

from __future__ import annotations

# One or two slices are missed by noise alone.
ABSENT_SLICES = 3

# Below this share of its largest area an object counts as tapered. A ball of ten slices is there on its last.
TAPERED = 0.25

# A tapered object that is larger than this many times its smallest area is another one.
REGROWN = 1.5

# A tapered object that loses less than a tenth from slice to slice, this many times in a row, is another one.
STEADY = 0.9
STEADY_SLICES = 3


class StopRule:
    """Watches the area of one object in one direction.

    Args:
        area: Pixels of the mask that the direction starts from.
    """

    def __init__(self, area: int):
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
        tapered = self._smallest < TAPERED * self._largest
        if area == 0:
            self._absent += 1
            return tapered or self._absent >= ABSENT_SLICES
        steady = tapered and area >= STEADY * self._previous
        self._steady = self._steady + 1 if steady else 0
        regrown = tapered and area > REGROWN * self._smallest
        self._absent = 0
        self._previous = area
        if area > self._largest:
            self._largest = self._smallest = area
        self._smallest = min(self._smallest, area)
        return regrown or self._steady >= STEADY_SLICES
