"""The signals of one object on one frame."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from lib.engine.frames import FrameSequence
from lib.engine.predictor import Outputs, Predictor
from lib.prompts.simulation import tight_box
from lib.prompts.types import FramePrompts
from lib.scoring.signals.aggregate import ENTROPY, IOU, PRESENCE, STABILITY
from lib.scoring.signals.boundary import boundary_entropy
from lib.scoring.signals.confidence import doubt, instability, predicted_iou, presence_doubt
from lib.scoring.signals.prompt_sensitivity import disagreement, jittered_prompts

Mask = NDArray[np.bool_]


def object_signals(outputs: Outputs, number: int, presence: float | None = None) -> dict[str, float]:
    """Those signals of an object that need no second look; what cannot be told, or is no number, is left out.

    Args:
        outputs: of a frame.
        number: of the object among them.
        presence: probability that it is there, where its source knows better than the answer to its prompts.
    """
    logits = outputs.logits[number]
    told = {
        ENTROPY: boundary_entropy(logits),
        PRESENCE: (
            presence_doubt(float(outputs.object_logits[number])) if presence is None else doubt(presence)
        ),
        IOU: 1.0 - predicted_iou(outputs.ious[number]),
        STABILITY: instability(logits),
    }
    return {name: value for name, value in told.items() if value is not None and math.isfinite(value)}


def jitter_signal(
    predictor: Predictor,
    frames: FrameSequence,
    index: int,
    mask: Mask,
    count: int,
    rng: np.random.Generator,
) -> float | None:
    """Disagreement of the answers to boxes drawn around a mask, on the embedding that is kept.

    Args:
        predictor: of the weights.
        frames: the image's frames.
        index: of the frame.
        mask: (H, W) of the native frame.
        count: of boxes.
        rng: draws them.

    Returns:
        0 to 1; None for an empty mask or fewer than two boxes.
    """
    if count < 2 or not mask.any():
        return None
    answers = predictor.outputs(frames, index, jittered_prompts(mask, count, rng))
    return disagreement(list(answers.logits > 0))


def native_mask(logits: NDArray[np.float32], height: int, width: int) -> Mask:
    """A mask (H, W) of the native frame from logits (h, w) of the mask grid, as the predictor makes it."""
    grown = F.interpolate(torch.from_numpy(logits)[None, None], (height, width), mode="bilinear")
    mask: Mask = (grown[0, 0] > 0).numpy()
    return mask


def largest_pieces(mask: Mask, most: int) -> list[Mask]:
    """The largest 4-connected pieces of a mask (H, W), the largest first; of two as large, the upper one."""
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())[1:]
    largest = np.argsort(-sizes, kind="stable")[: min(count, most)] + 1
    return [pieces == piece for piece in largest.tolist()]


def piece_boxes(mask: Mask, most: int) -> list[FramePrompts]:
    """Tight boxes around the largest 4-connected pieces of a mask (H, W), the largest first."""
    return [FramePrompts.of_box(tight_box(piece)) for piece in largest_pieces(mask, most)]
