"""Objects that overlap in their file: which one a shared voxel becomes."""

from __future__ import annotations

from collections.abc import Sequence


def paint_order(sizes: Sequence[float]) -> list[int]:
    """Order in which objects are painted over each other: the largest first, equal ones as in the file.

    So a voxel in two objects is the smaller one's: a lesion stays whole in its organ whichever of the two was
    drawn first. Of two objects of one size it is the later one's.

    Args:
        sizes: voxels, or area, of each object in the order of the file.

    Returns:
        Indices of all objects.
    """
    return sorted(range(len(sizes)), key=lambda index: -sizes[index])
