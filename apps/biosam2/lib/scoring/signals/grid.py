"""A grid of clicks over the frame, and of what they find the best that do not overlap: needs no label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.engine.frames import FrameSequence
from lib.engine.predictor import Outputs, Predictor
from lib.metrics.overlap import jaccard
from lib.prompts.types import FramePrompts
from lib.scoring.signals.confidence import instability, predicted_iou
from lib.scoring.signals.object_signals import native_mask, piece_boxes
from lib.scoring.signals.prompt_sources import Suggestion

# Clicks along each side of the frame, and objects that are kept: every one of them is looked at closely.
SIDE = 5
MOST_OBJECTS = 3
# Masks that share more than this are one object (IoU).
SAME_OBJECT = 0.5
# Of the frame: what is smaller is noise, what is larger is background.
LEAST_AREA, MOST_AREA = 0.002, 0.5


class GridSource:
    """SAM's automatic masks, few of them (Kirillov et al. 2023, section 5 of its appendix).

    Args:
        side: clicks along each side of the frame.
        most: objects that are returned.
    """

    def __init__(self, side: int = SIDE, most: int = MOST_OBJECTS):
        self._side = side
        self._most = most

    @property
    def name(self) -> str:
        """With its numbers."""
        return f"grid {self._side} {self._most}"

    def suggest(self, predictor: Predictor, frames: FrameSequence, index: int) -> list[Suggestion]:
        """A box around each of the best masks, no two of them of one object."""
        clicks = grid_points(frames.width, frames.height, self._side)
        one = np.ones(1, dtype=np.int32)
        prompts = [FramePrompts(points=click[None], labels=one) for click in clicks]
        outputs = predictor.outputs(frames, index, prompts)
        kept = best_apart(outputs.logits > 0, _qualities(outputs), self._most)
        found = [native_mask(outputs.logits[number], frames.height, frames.width) for number in kept]
        return [Suggestion("", box) for mask in found for box in piece_boxes(mask, 1)]


def grid_points(width: int, height: int, side: int) -> NDArray[np.float32]:
    """The centres of ``side`` x ``side`` equal parts of a frame: float32 (side * side, 2), each (x, y)."""
    steps = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(steps * width - 0.5, steps * height - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def best_apart(
    masks: NDArray[np.bool_], qualities: Sequence[float], most: int, same: float = SAME_OBJECT
) -> list[int]:
    """Non-maximum suppression: the best mask, then the best of those that share little with any before it.

    Args:
        masks: (N, h, w).
        qualities: of each, the higher the better; those of 0 and less are left out.
        most: how many are kept.
        same: IoU above which two masks are one object.

    Returns:
        Their numbers, the best first; of two equally good ones the first.
    """
    kept: list[int] = []
    for number in np.argsort(-np.asarray(qualities), kind="stable").tolist():
        if len(kept) == most or qualities[number] <= 0:
            break
        if all(jaccard(masks[number], masks[other]) <= same for other in kept):
            kept.append(number)
    return kept


def _qualities(outputs: Outputs) -> list[float]:
    """Predicted IoU times stability of each mask; 0 where there is no object, or hardly anything else."""
    qualities = []
    for logits, ious, object_logit in zip(outputs.logits, outputs.ious, outputs.object_logits, strict=True):
        share = float((logits > 0).mean())
        wanted = object_logit > 0 and LEAST_AREA <= share <= MOST_AREA
        qualities.append(predicted_iou(ious) * (1.0 - (instability(logits) or 0.0)) if wanted else 0.0)
    return qualities
