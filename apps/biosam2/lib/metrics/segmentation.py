"""Measures of segmentations: Dice, Jaccard, NSD, HD95, boundary F, J&F, and instance F1.

NSD and HD95 come from DeepMind's ``surface-distance`` (Nikolov et al. 2018, arXiv 1809.04430): a surface
consists of elements at the corners between voxels, each weighted by its area. MONAI uses the object's
outermost voxels instead, each counted once: always in ``compute_hausdorff_distance``, and in
``compute_surface_dice`` unless ``use_subvoxels`` is set.

F and J&F are those of DAVIS (Perazzi et al. 2016, "A Benchmark Dataset and Evaluation Methodology for Video
Object Segmentation", section 4). As in the published program, a boundary pixel matches if the other boundary
enters a disk around it.

Every measure raises ``ValueError`` for masks that are not bool or differ in shape,
and for numbers out of range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import surface_distance
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]


def check_pair(first: Mask, second: Mask) -> None:
    """Rejects two masks that cannot be compared.

    Raises:
        ValueError: a mask is not bool, or the shapes differ.
    """
    for mask in (first, second):
        if mask.dtype != np.bool_:
            raise ValueError(f"Masks must be bool, not {mask.dtype}: compare, for example, mask > 0")
    if first.shape != second.shape:
        raise ValueError(
            f"Masks with shapes {first.shape} and {second.shape} cannot be compared: resample to one grid"
        )


def dice(first: Mask, second: Mask) -> float:
    """2 |A and B| / (|A| + |B|), Dice 1945: 0 to 1.

    Two empty masks: 1; one empty mask: 0. (MONAI's DiceMetric returns NaN for an empty ground truth unless
    ``ignore_empty=False``, which equals the rule here.)
    """
    check_pair(first, second)
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2.0 * np.count_nonzero(first & second) / total if total else 1.0


def jaccard(first: Mask, second: Mask) -> float:
    """|A and B| / |A or B|, also called intersection over union, or J in DAVIS: 0 to 1.

    Two empty masks: 1; one empty mask: 0.
    """
    check_pair(first, second)
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


# Relative to the tolerance and to a voxel. Spacings often have 7 digits: three voxels of 0.7 mm must be
# within 2.1 mm.
_ROUNDING = 1e-6
_ROBUST_PERCENT = 95


def normalized_surface_dice(
    first: Mask, second: Mask, spacing: Sequence[float], tolerance_mm: float
) -> float:
    """Share of both surfaces within a tolerance of the other surface (Nikolov et al. 2018, section 4.3).

    Args:
        first: 2-D or 3-D bool.
        second: bool, same shape.
        spacing: mm per axis, in the masks' axis order.
        tolerance_mm: Distance in mm, 0 or more.

    Returns:
        0 to 1. Two empty masks: 1 (DeepMind: NaN); one empty mask: 0.

    Raises:
        ValueError: a mask is not bool or not 2-D or 3-D, the shapes differ, or the spacing or the tolerance
            is invalid.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"Invalid tolerance {tolerance_mm} mm: use 0 or more")
    distances = _surface_distances(first, second, spacing)
    if not (first.any() or second.any()):
        return 1.0
    limit = tolerance_mm + _ROUNDING * (tolerance_mm + min(spacing))
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, limit))


def hausdorff95(first: Mask, second: Mask, spacing: Sequence[float]) -> float:
    """Distance in mm that covers 95% of each surface's area, the larger of the two directions.

    Arguments as in ``normalized_surface_dice``. Two empty masks: 0; one empty mask: infinity.
    """
    distances = _surface_distances(first, second, spacing)
    if not (first.any() or second.any()):
        return 0.0
    return float(surface_distance.compute_robust_hausdorff(distances, _ROBUST_PERCENT))


def _surface_distances(
    first: Mask, second: Mask, spacing: Sequence[float]
) -> Mapping[str, NDArray[np.float64]]:
    """Distances and areas of the surface elements of both masks."""
    check_pair(first, second)
    if first.ndim not in (2, 3):
        raise ValueError(f"Masks with {first.ndim} axes have no surface distance: use 2-D or 3-D masks")
    if len(spacing) != first.ndim or not all(np.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(
            f"Invalid spacing {tuple(spacing)}: use a positive number for each of {first.ndim} axes"
        )
    found: Mapping[str, NDArray[np.float64]] = surface_distance.compute_surface_distances(
        first, second, tuple(spacing)
    )
    return found


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
    """J, F and J&F of DAVIS for masks ``(H, W)``: Jaccard, boundary F at DAVIS' tolerance, their mean."""
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


Labels = NDArray[np.integer[Any]]


def instance_f1(predicted_labels: Labels, true_labels: Labels, iou: float = 0.5) -> float:
    """2 TP / (2 TP + FP + FN), as in the cell segmentation challenge of NeurIPS 2022 (Ma et al. 2024).

    A predicted and a true object match if their intersection over union is at least ``iou``. Matching is one
    to one with as many pairs as possible: TP matches, FP unmatched predicted objects, FN unmatched true
    objects. The challenge's program first removes objects at the image's edge; this function does not.

    Args:
        predicted_labels: Integers, any shape; 0 is background, each other value one object.
        true_labels: Integers, same shape and meaning; the values may differ.
        iou: Threshold, above 0 and at most 1.

    Returns:
        0 to 1. No object in either map: 1; no object in only one map: 0.
    """
    _check(predicted_labels, true_labels, iou)
    predicted, predicted_sizes = _objects(predicted_labels)
    true, true_sizes = _objects(true_labels)
    objects = len(predicted_sizes) + len(true_sizes)
    if not (len(predicted_sizes) and len(true_sizes)):
        return float(objects == 0)
    both = (predicted >= 0) & (true >= 0)
    pairs = predicted[both] * len(true_sizes) + true[both]
    return 2 * _matches(pairs, predicted_sizes, true_sizes, iou) / objects


def _objects(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Object number per voxel (flat, from 0; -1 for background), and object sizes in voxels."""
    values, numbers, sizes = np.unique(labels.ravel(), return_inverse=True, return_counts=True)
    background = int(np.searchsorted(values, 0))
    if background == len(values) or values[background] != 0:
        return numbers, sizes
    numbers = np.where(numbers == background, -1, numbers - (numbers > background))
    return numbers, np.delete(sizes, background)


def _matches(
    pairs: NDArray[np.int64], predicted_sizes: NDArray[np.int64], true_sizes: NDArray[np.int64], iou: float
) -> int:
    """Largest number of one-to-one matches of objects with sizes in voxels.

    ``pairs`` has, for each voxel in both maps, the predicted number times the count of true objects plus the
    true number.
    """
    found, overlap = np.unique(pairs, return_counts=True)
    one, other = np.divmod(found, len(true_sizes))
    fits = overlap >= iou * (predicted_sizes[one] + true_sizes[other] - overlap)
    shape = (len(predicted_sizes), len(true_sizes))
    graph = coo_array((np.ones(int(fits.sum())), (one[fits], other[fits])), shape=shape).tocsr()
    return int((maximum_bipartite_matching(graph) >= 0).sum())


def _check(predicted_labels: Labels, true_labels: Labels, iou: float) -> None:
    for labels in (predicted_labels, true_labels):
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"Instance maps must be integer, not {labels.dtype}: use 0 for background")
    if predicted_labels.shape != true_labels.shape:
        raise ValueError(
            f"Instance maps with shapes {predicted_labels.shape} and {true_labels.shape} cannot be compared: "
            "resample to one grid first"
        )
    if not 0 < iou <= 1:
        raise ValueError(f"Invalid intersection over union {iou}: use a number above 0 and at most 1")
