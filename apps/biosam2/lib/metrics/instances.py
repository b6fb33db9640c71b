"""Detection quality of instance segmentations: F1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

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

    Raises:
        ValueError: a map is not integer, the shapes differ, or ``iou`` is out of range.
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
    """Largest number of one-to-one matches.

    Args:
        pairs: Predicted number times the count of true objects plus true number, per voxel in both.
        predicted_sizes: Voxels per predicted object.
        true_sizes: Voxels per true object.
        iou: Threshold of intersection over union.
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
