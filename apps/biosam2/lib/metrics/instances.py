"""How many objects of a picture were found: F1 of instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

Labels = NDArray[np.integer[Any]]


def instance_f1(predicted_labels: Labels, true_labels: Labels, iou: float = 0.5) -> float:
    """2 TP / (2 TP + FP + FN), as in the cell segmentation challenge of NeurIPS 2022 (Ma et al. 2024).

    A predicted and a true object match if their intersection over union is at least ``iou``, each with one
    other and as many as can be: TP matches, FP predicted objects without one, FN true objects without one.
    The challenge's program first leaves out the objects at the image's edge; this does not.

    Args:
        predicted_labels: integers of any shape, 0 background, each other value one object.
        true_labels: the same, of the same shape; the values need not be the same.
        iou: above 0, at most 1.

    Returns:
        0 to 1. No object in either agrees: 1; none in one of them: 0.

    Raises:
        ValueError: one is not integer, their shapes differ, or ``iou`` is out of its range.
    """
    for labels in (predicted_labels, true_labels):
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels of {labels.dtype} do not name objects: give integers, 0 for background")
    if predicted_labels.shape != true_labels.shape:
        raise ValueError(
            f"labels of the shapes {predicted_labels.shape} and {true_labels.shape} cannot be compared: "
            "put them on one grid first"
        )
    if not 0 < iou <= 1:
        raise ValueError(f"objects cannot match at an intersection over union of {iou}: give 0 to 1, not 0")
    predicted, predicted_sizes = _objects(predicted_labels)
    true, true_sizes = _objects(true_labels)
    objects = len(predicted_sizes) + len(true_sizes)
    if not (len(predicted_sizes) and len(true_sizes)):
        return float(objects == 0)
    both = (predicted >= 0) & (true >= 0)
    pairs, overlap = np.unique(predicted[both] * len(true_sizes) + true[both], return_counts=True)
    one, other = np.divmod(pairs, len(true_sizes))
    fits = overlap >= iou * (predicted_sizes[one] + true_sizes[other] - overlap)
    shape = (len(predicted_sizes), len(true_sizes))
    graph = coo_array((np.ones(int(fits.sum())), (one[fits], other[fits])), shape=shape).tocsr()
    matches = int((maximum_bipartite_matching(graph) >= 0).sum())
    return 2 * matches / objects


def _objects(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each voxel's object numbered from 0, -1 for background, and the objects' sizes; flat."""
    values, numbers, sizes = np.unique(labels.ravel(), return_inverse=True, return_counts=True)
    background = int(np.searchsorted(values, 0))
    if background == len(values) or values[background] != 0:
        return numbers, sizes
    numbers = np.where(numbers == background, -1, numbers - (numbers > background))
    return numbers, np.delete(sizes, background)
