"""The options that tidy a mask: its largest piece alone, and no holes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.transforms.components import fill_holes, largest_component


def cleaned(
    mask: NDArray[np.bool_], request: Mapping[str, Any], seeds: Iterable[Sequence[int]] = ()
) -> NDArray[np.bool_]:
    """One object's mask after the options ``largest_component`` and ``fill_holes`` of a request.

    Args:
        mask: (H, W) of one slice or (I, J, K) of a volume. A hole in a slice is none in a volume where it is
            open above or below.
        request: with the defaults of the task.
        seeds: indices into the mask of clicks on the object; the pieces they lie on count as the largest.
    """
    if request["largest_component"]:
        mask = largest_component(mask, seeds)
    if request["fill_holes"]:
        mask = fill_holes(mask)
    return mask


def cleaned_labels(
    labels: NDArray[np.uint8], request: Mapping[str, Any], seeds: Mapping[int, Iterable[Sequence[int]]]
) -> NDArray[np.uint8]:
    """A label map (I, J, K), each label cleaned by itself; a hole that holds another label keeps it.

    Args:
        labels: the map.
        request: with the defaults of the task.
        seeds: voxels (i, j, k) of the clicks on each label's object.
    """
    if not (request["largest_component"] or request["fill_holes"]):
        return labels
    result = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        mask = cleaned(labels == value, request, seeds.get(int(value), ()))
        result[mask & ((labels == 0) | (labels == value))] = value
    return result
