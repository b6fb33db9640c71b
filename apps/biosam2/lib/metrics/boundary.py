"""Agreement of two contours in an image: the boundary measure F of DAVIS, and J&F.

Perazzi et al. 2016, "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", section
4. As in its published program, a boundary pixel is matched if the other boundary comes into a disk around it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lib.metrics.masks import Mask, check_pair
from lib.metrics.overlap import jaccard

DAVIS_SHARE = 0.008  # of the image's diagonal, the tolerance of every published F


def boundary_f(first: Mask, second: Mask, share: float = DAVIS_SHARE) -> float:
    """F = 2 P R / (P + R), where P and R are the shares of each boundary that the other one matches.

    Args:
        first: ``(H, W)`` bool.
        second: ``(H, W)`` bool.
        share: the tolerance as a share of the diagonal of the whole image, rounded up to pixels.

    Returns:
        0 to 1. Two masks without a boundary agree: 1; one without and another: 0. A mask that is empty or
        fills the image has no boundary.

    Raises:
        ValueError: the masks are not 2-D bool of one shape, or the share is below 0.
    """
    check_pair(first, second)
    if first.ndim != 2:
        raise ValueError(f"a mask of {first.ndim} axes has no boundary F: give it slice by slice")
    if not share >= 0:
        raise ValueError(f"a tolerance of {share} of the diagonal is not possible: give 0 or more")
    ours, theirs = _boundary(first), _boundary(second)
    if not (len(ours) and len(theirs)):
        return float(len(ours) == len(theirs))
    radius = math.ceil(share * math.hypot(*first.shape))
    precision, recall = _matched(ours, theirs, radius), _matched(theirs, ours, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def region_and_boundary(first: Mask, second: Mask) -> tuple[float, float, float]:
    """J, F and J&F of DAVIS: Jaccard's index, the boundary measure at its usual tolerance, and their mean.

    Args:
        first: ``(H, W)`` bool.
        second: ``(H, W)`` bool.

    Raises:
        ValueError: the masks are not 2-D bool of one shape.
    """
    region, boundary = jaccard(first, second), boundary_f(first, second)
    return region, boundary, (region + boundary) / 2


def _boundary(mask: Mask) -> NDArray[np.int64]:
    """``(N, 2)`` pixels unlike the one below, the one to the right, or the one between (DAVIS' seg2bmap)."""
    grown = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    differs = mask ^ grown[1:, :-1]
    differs |= mask ^ grown[:-1, 1:]
    differs |= mask ^ grown[1:, 1:]
    return np.argwhere(differs)


def _matched(here: NDArray[np.int64], there: NDArray[np.int64], radius: int) -> float:
    """Share of the pixels here that have one there within a disk of a radius in pixels."""
    # Distances between pixels are roots of whole numbers: half a square more takes in the rim and no more.
    limit = math.sqrt(radius**2 + 0.5)
    distances = KDTree(there, compact_nodes=False, balanced_tree=False).query(
        here, distance_upper_bound=limit
    )[0]
    return float(np.isfinite(distances).mean())
