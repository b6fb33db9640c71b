"""Prompts tracked from the labelled slice that is most similar to a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lib.engine.frames import FrameSequence, SingleFrame
from lib.engine.memory import MemoryBank
from lib.engine.predictor import Predictor
from lib.labels.labelled_slices import LabelledSlice
from lib.metrics.overlap import jaccard
from lib.prompts.simulation import jittered_box
from lib.prompts.types import FramePrompts
from lib.scoring.signals.embedding import Vector, frame_vector
from lib.scoring.signals.object_signals import native_mask, piece_boxes, predicted_iou
from lib.scoring.signals.prompt_sources import Suggestion
from lib.transforms.components import largest_component

# Classes looked for on a frame, each at the cost of one memory step, and components of each class: nuclei
# are many objects of one class.
MOST_CLASSES = 3
MOST_PIECES = 3
# Clip length stated to the network: its memory depth, so that the temporal position is a usual one.
_CLIP = 16
_LABELLED, _ASKED = 0, 1


def accepted_pairs(
    predictor: Predictor, slices: Sequence[LabelledSlice], give_way: Callable[[], None] = lambda: None
) -> tuple[list[float], list[float]]:
    """Predicted and true IoU of the masks for jittered boxes around the largest component of each class.

    Args:
        predictor: Predictor of the weights in service.
        slices: Labelled slices.
        give_way: Called between steps; returns once no interactive request runs.

    Returns:
        Two lists of equal length, the arguments of ``lib.metrics.calibration.fit_calibration``.
    """
    predicted, true = [], []
    for number, item in enumerate(slices):
        for mask in item.masks.values():
            give_way()
            truth = largest_component(mask)
            box = FramePrompts.of_box(jittered_box(truth, np.random.default_rng(number)))
            outputs = predictor.outputs(item, 0, [box])
            predicted.append(predicted_iou(outputs.ious[0]))
            true.append(jaccard(native_mask(outputs.logits[0], item.height, item.width), truth))
    return predicted, true


@dataclass
class _SliceState:
    """Embedding and memories of a labelled slice, computed on first use."""

    vector: Vector
    banks: dict[str, MemoryBank] = field(default_factory=dict)


class NearestLabelSource:
    """Mask prompts on the most similar labelled slice, tracked onto the frame.

    Args:
        slices: Labelled slices, at least one.
        most: Maximum number of classes, those with the largest objects.

    Raises:
        ValueError: There is no slice.
    """

    def __init__(self, slices: Sequence[LabelledSlice], most: int = MOST_CLASSES):
        if not slices:
            raise ValueError("NearestLabelSource needs at least one labelled slice; use GridSource")
        self._slices = list(slices)
        self._most = most
        self._states: dict[int, _SliceState] = {}

    @property
    def name(self) -> str:
        """Name without the slices: a further label does not invalidate all scores."""
        return self.name_for(self._most)

    @staticmethod
    def name_for(most: int = MOST_CLASSES) -> str:
        """Name of a source for ``most`` classes."""
        return f"nearest {most}"

    def suggest(self, predictor: Predictor, frames: FrameSequence, index: int) -> list[Suggestion]:
        """Boxes around the objects of the nearest slice as found on the frame.

        Slices of the same image are left out: their objects would be found at once.
        """
        number = self._nearest(predictor, frames, index)
        if number is None:
            return []
        suggestions = []
        for name, bank in self._banks(predictor, number).items():
            found = predictor.track(SingleFrame(frames, index, _CLIP), _ASKED, bank, reverse=False)
            bank.forget_tracked()
            boxes = piece_boxes(found.mask, MOST_PIECES)
            suggestions += [Suggestion(name, box, found.presence) for box in boxes or (None,)]
        return sorted(suggestions, key=lambda item: -(item.presence or 0.0))

    def _nearest(self, predictor: Predictor, frames: FrameSequence, index: int) -> int | None:
        vector = frame_vector(predictor.features(frames, index))
        best, similarity = None, -np.inf
        for number, item in enumerate(self._slices):
            if item.digest == frames.digest:
                continue
            if number not in self._states:
                self._states[number] = _SliceState(frame_vector(predictor.features(item, 0)))
            if (cosine := float(vector @ self._states[number].vector)) > similarity:
                best, similarity = number, cosine
        return best

    def _banks(self, predictor: Predictor, number: int) -> dict[str, MemoryBank]:
        state, item = self._states[number], self._slices[number]
        if not state.banks:
            by_size = sorted(item.masks, key=lambda name: (-int(item.masks[name].sum()), name))
            for name in by_size[: self._most]:
                bank = predictor.new_bank()
                prompts = FramePrompts.of_mask(item.masks[name])
                predictor.segment(SingleFrame(item, 0, _CLIP), _LABELLED, prompts, bank)
                state.banks[name] = bank
        return state.banks
