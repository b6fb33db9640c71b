"""Agreement of two contours in an image: the boundary measure F of DAVIS, and J&F.

Perazzi et al. 2016, "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", section
4. As in the published program, a boundary pixel matches if the other boundary enters a disk around it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lib.metrics.overlap import Mask, check_pair, jaccard

# Tolerance as a share of the image's diagonal, as in every published F.
DAVIS_SHARE = 0.008


def boundary_f(first: Mask, second: Mask, share: float = DAVIS_SHARE) -> float:
    """F = 2 P R / (P + R), with precision P and recall R: the matched share of each boundary.

    Args:
        first: ``(H, W)`` bool.
        second: ``(H, W)`` bool.
        share: Tolerance as a share of the image's diagonal, rounded up to whole pixels.

    Returns:
        0 to 1. Two masks without a boundary: 1; only one without a boundary: 0. Empty masks and masks that
        fill the image have no boundary.

    Raises:
        ValueError: the masks are not 2-D bool with one shape, or the share is below 0.
    """
    check_pair(first, second)
    if first.ndim != 2:
        raise ValueError(f"Masks with {first.ndim} axes have no boundary F: compare slice by slice")
    if not share >= 0:
        raise ValueError(f"Invalid tolerance {share} (share of the diagonal): use 0 or more")
    ours, theirs = _boundary(first), _boundary(second)
    if not (len(ours) and len(theirs)):
        return float(len(ours) == len(theirs))
    radius = math.ceil(share * math.hypot(*first.shape))
    precision, recall = _matched(ours, theirs, radius), _matched(theirs, ours, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def region_and_boundary(first: Mask, second: Mask) -> tuple[float, float, float]:
    """J, F and J&F of DAVIS: Jaccard index, boundary measure at DAVIS' tolerance, and their mean.

    Args:
        first: ``(H, W)`` bool.
        second: ``(H, W)`` bool.

    Raises:
        ValueError: the masks are not 2-D bool with one shape.
    """
    region, boundary = jaccard(first, second), boundary_f(first, second)
    return region, boundary, (region + boundary) / 2


def _boundary(mask: Mask) -> NDArray[np.int64]:
    """``(N, 2)`` pixels that differ from their lower, right or lower right neighbour (DAVIS' seg2bmap)."""
    grown = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    differs = mask ^ grown[1:, :-1]
    differs |= mask ^ grown[:-1, 1:]
    differs |= mask ^ grown[1:, 1:]
    return np.argwhere(differs)


def _matched(here: NDArray[np.int64], there: NDArray[np.int64], radius: int) -> float:
    """Share of the pixels ``here`` with a pixel of ``there`` within a radius in pixels."""
    # Squared pixel distances are integers: adding 0.5 includes the rim despite rounding, and nothing else.
    limit = math.sqrt(radius**2 + 0.5)
    distances = KDTree(there, compact_nodes=False, balanced_tree=False).query(
        here, distance_upper_bound=limit
    )[0]
    return float(np.isfinite(distances).mean())
