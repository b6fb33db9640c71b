"""What the network says of its own answer: is the object there, how good is the mask, how firm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

# SAM's own distance of logits from the threshold, of its automatic mask generator (Kirillov et al. 2023).
STABILITY_OFFSET = 1.0


def presence_doubt(object_logit: float) -> float:
    """How undecided the network is about whether the object is on the frame: u = 1 - |2 p - 1|.

    Args:
        object_logit: p is its sigmoid.

    Returns:
        0 (there, or not there) to 1 (p = 0.5).
    """
    return doubt(float(expit(object_logit)))


def doubt(probability: float) -> float:
    """The doubt u = 1 - |2 p - 1|: 1 at a probability of 0.5, 0 at 0 and 1."""
    return 1.0 - abs(2.0 * probability - 1.0)


def predicted_iou(ious: NDArray[np.float32]) -> float:
    """The predicted IoU of the mask that was chosen: the best of those that were decoded, within 0 and 1.

    Args:
        ious: (M,) of the decoded masks.
    """
    return min(max(float(ious.max()), 0.0), 1.0)


def instability(logits: NDArray[np.float32], offset: float = STABILITY_OFFSET) -> float | None:
    """How much the mask depends on its threshold: 1 - area(l > d) / area(l > -d).

    SAM's stability, turned round.

    Args:
        logits: (h, w) of the mask grid.
        offset: d.

    Returns:
        0 (firm) to 1; None where no logit is above -d and there is no mask to be firm about.
    """
    wide = np.count_nonzero(logits > -offset)
    if not wide:
        return None
    return 1.0 - np.count_nonzero(logits > offset) / wide
