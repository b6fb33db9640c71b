"""Prompts for images without any: a grid of clicks, and the objects of the nearest labelled slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lib.engine.frames import FrameSequence, SingleFrame
from lib.engine.memory import MemoryBank
from lib.engine.predictor import Outputs, Predictor
from lib.labels.labelled_slices import LabelledSlice
from lib.metrics.segmentation import jaccard
from lib.prompts.simulation import jittered_box
from lib.prompts.types import FramePrompts
from lib.scoring.signals import Vector, frame_vector, instability, native_mask, piece_boxes, predicted_iou
from lib.transforms.components import largest_component

# Clicks along each side of the frame, and objects returned; each object is decoded again for its signals.
SIDE = 5
MOST_OBJECTS = 3
# IoU above which two masks are the same object.
SAME_OBJECT = 0.5
# Share of the frame that an object covers: less is noise, more is background.
LEAST_AREA, MOST_AREA = 0.002, 0.5


@dataclass(frozen=True, eq=False)
class Suggestion:
    """A possible object on a frame.

    Attributes:
        label: Class name; empty if the source knows none.
        prompts: Prompts for the object in pixels of the native frame; None if the source looked for the class
            and did not find it.
        presence: Probability of the object's presence, 0 to 1, according to the source; None if only
            decoding the prompts can tell.
    """

    label: str
    prompts: FramePrompts | None
    presence: float | None = None


class PromptSource(Protocol):
    """Finds objects on unlabelled frames; equal frames get equal suggestions.

    All prompts are boxes: masks from clicks are less certain than masks from boxes, and scores must be
    comparable. Scores made with a source of another name are computed again.
    """

    name: str

    def suggest(self, predictor: Predictor, frames: FrameSequence, index: int) -> list[Suggestion]:
        """Objects on a frame, most likely first."""


class GridSource:
    """SAM's automatic mask generation with few points (Kirillov et al. 2023, section 5 of the appendix)."""

    name = f"grid {SIDE} {MOST_OBJECTS}"

    def suggest(self, predictor: Predictor, frames: FrameSequence, index: int) -> list[Suggestion]:
        """Boxes around the best masks, one per object."""
        clicks = grid_points(frames.width, frames.height, SIDE)
        one = np.ones(1, dtype=np.int32)
        prompts = [FramePrompts(points=click[None], labels=one) for click in clicks]
        outputs = predictor.outputs(frames, index, prompts)
        kept = best_apart(outputs.logits > 0, _qualities(outputs), MOST_OBJECTS)
        found = [native_mask(outputs.logits[number], frames.height, frames.width) for number in kept]
        return [Suggestion("", box) for mask in found for box in piece_boxes(mask, 1)]


def grid_points(width: int, height: int, side: int) -> NDArray[np.float32]:
    """Centres of ``side`` x ``side`` equal parts of a frame: float32 (side * side, 2) as (x, y)."""
    steps = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(steps * width - 0.5, steps * height - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def best_apart(masks: NDArray[np.bool_], qualities: Sequence[float], most: int) -> list[int]:
    """Non-maximum suppression by IoU: indices of at most ``most`` of the masks (N, h, w), best first.

    Masks with a quality of 0 or less are left out; ties go to the smaller index.
    """
    kept: list[int] = []
    for number in np.argsort(-np.asarray(qualities), kind="stable").tolist():
        if len(kept) == most or qualities[number] <= 0:
            break
        if all(jaccard(masks[number], masks[other]) <= SAME_OBJECT for other in kept):
            kept.append(number)
    return kept


def _qualities(outputs: Outputs) -> list[float]:
    """Predicted IoU times stability of each mask; 0 for absent objects, noise and background."""
    qualities = []
    for logits, ious, object_logit in zip(outputs.logits, outputs.ious, outputs.object_logits, strict=True):
        share = float((logits > 0).mean())
        wanted = object_logit > 0 and LEAST_AREA <= share <= MOST_AREA
        qualities.append(predicted_iou(ious) * (1.0 - (instability(logits) or 0.0)) if wanted else 0.0)
    return qualities


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
    """Mask prompts on the most similar of some labelled slices, tracked onto the frame."""

    # Without the slices: a further label does not invalidate all scores.
    name = f"nearest {MOST_CLASSES}"

    def __init__(self, slices: Sequence[LabelledSlice]):
        self._slices = list(slices)
        self._states: dict[int, _SliceState] = {}

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
            for name in by_size[:MOST_CLASSES]:
                bank = predictor.new_bank()
                prompts = FramePrompts.of_mask(item.masks[name])
                predictor.segment(SingleFrame(item, 0, _CLIP), _LABELLED, prompts, bank)
                state.banks[name] = bank
        return state.banks
