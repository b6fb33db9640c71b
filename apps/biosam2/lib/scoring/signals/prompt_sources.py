"""Prompts for images that nobody has prompted: the interface, and a grid of clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lib.engine.frames import FrameSequence
from lib.engine.predictor import Outputs, Predictor
from lib.metrics.overlap import jaccard
from lib.prompts.types import FramePrompts
from lib.scoring.signals.object_signals import instability, native_mask, piece_boxes, predicted_iou

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
    """Finds objects on unlabelled frames.

    All prompts are boxes: masks from clicks are less certain than masks from boxes, and scores must be
    comparable. A source keeps no state between frames: equal frames get equal suggestions.
    """

    @property
    def name(self) -> str:
        """Identifies source and parameters; scores made with another source are computed again."""
        ...

    def suggest(self, predictor: Predictor, frames: FrameSequence, index: int) -> list[Suggestion]:
        """Objects on a frame, most likely first.

        Args:
            predictor: Predictor of the weights in service.
            frames: Frames of the image.
            index: Frame index.
        """
        ...


class GridSource:
    """SAM's automatic mask generation with few points (Kirillov et al. 2023, section 5 of the appendix).

    Args:
        side: Clicks along each side of the frame.
        most: Maximum number of objects.
    """

    def __init__(self, side: int = SIDE, most: int = MOST_OBJECTS):
        self._side = side
        self._most = most

    @property
    def name(self) -> str:
        """Name with its parameters."""
        return f"grid {self._side} {self._most}"

    def suggest(self, predictor: Predictor, frames: FrameSequence, index: int) -> list[Suggestion]:
        """Boxes around the best masks, one per object."""
        clicks = grid_points(frames.width, frames.height, self._side)
        one = np.ones(1, dtype=np.int32)
        prompts = [FramePrompts(points=click[None], labels=one) for click in clicks]
        outputs = predictor.outputs(frames, index, prompts)
        kept = best_apart(outputs.logits > 0, _qualities(outputs), self._most)
        found = [native_mask(outputs.logits[number], frames.height, frames.width) for number in kept]
        return [Suggestion("", box) for mask in found for box in piece_boxes(mask, 1)]


def grid_points(width: int, height: int, side: int) -> NDArray[np.float32]:
    """Centres of ``side`` x ``side`` equal parts of a frame: float32 (side * side, 2) as (x, y)."""
    steps = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(steps * width - 0.5, steps * height - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def best_apart(
    masks: NDArray[np.bool_], qualities: Sequence[float], most: int, same: float = SAME_OBJECT
) -> list[int]:
    """Non-maximum suppression by mask IoU.

    Args:
        masks: (N, h, w) masks.
        qualities: Quality of each mask; masks with a quality of 0 or less are left out.
        most: Maximum number of masks kept.
        same: IoU above which two masks are the same object.

    Returns:
        Indices of the kept masks, best first; ties go to the smaller index.
    """
    kept: list[int] = []
    for number in np.argsort(-np.asarray(qualities), kind="stable").tolist():
        if len(kept) == most or qualities[number] <= 0:
            break
        if all(jaccard(masks[number], masks[other]) <= same for other in kept):
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
