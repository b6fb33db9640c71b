"""From results on slices to a label map, and the options that tidy it: the largest piece, no holes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.engine.memory import confidence
from lib.engine.predictor import FrameMask
from lib.metrics.calibration import Calibration
from lib.transforms.components import fill_holes, largest_component
from lib.transforms.frames import frame_view
from lib.transforms.sampling import doubtful

# Slices of an object that are named for a look.
MOST_TO_CHECK = 4


class SliceMerger:
    """Label map of an image while objects are found on its slices, in any order.

    Args:
        shape: Voxels (I, J, K).
        axis: Slice axis.
        calibration: Calibration of the confidence.

    Attributes:
        labels: uint8 (I, J, K), 0 where nothing is.
        confidence: Confidence by label value and slice, 0 to 1; where the object was not found, that it is
            absent.
    """

    def __init__(self, shape: Sequence[int], axis: int, calibration: Calibration):
        self.labels = np.zeros(shape, np.uint8, order="F")
        self.confidence: dict[int, dict[int, float]] = defaultdict(dict)
        self._axis = axis
        self._calibration = calibration
        # Confidence of the label that has the voxel, in steps of 1 / 254 from 1 on.
        self._best = np.zeros_like(self.labels)
        self._held: dict[int, list[float]] = defaultdict(list)

    def add(self, value: int, index: int, result: FrameMask) -> None:
        """Takes in one object on one slice; where objects overlap, the more confident one has the voxel."""
        if not result.mask.any():
            self.confidence[value][index] = round(1.0 - result.presence, 4)
            return
        score = self._calibration(confidence(result.score, result.presence))
        self.confidence[value][index] = round(score, 4)
        self._held[value].append(score)
        level = round(score * 254) + 1
        best, labels = (frame_view(array, self._axis, index) for array in (self._best, self.labels))
        won = result.mask & (best < level)
        best[won], labels[won] = level, value

    def score(self, value: int) -> float | None:
        """Mean confidence over the slices that hold an object; None where no slice does."""
        held = self._held.get(value)
        return round(float(np.mean(held)), 4) if held else None

    def facts(self, values: Mapping[str, int], known: Mapping[str, Collection[int]]) -> dict[str, Any]:
        """``slice_scores`` and ``slices_to_check`` of an answer's ``params``, by label name.

        Args:
            values: Value by label name.
            known: Slices with prompts, by label name; they need no look.
        """
        scores = {name: dict(sorted(self.confidence[value].items())) for name, value in values.items()}
        return {
            "axis": self._axis,
            "slice_scores": scores,
            "slices_to_check": {
                name: doubtful(by_slice, known.get(name, ()), MOST_TO_CHECK)
                for name, by_slice in scores.items()
            },
        }


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
