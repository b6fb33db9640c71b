"""How much the answer depends on how the box was drawn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.metrics.overlap import jaccard
from lib.prompts.simulation import jittered_box
from lib.prompts.types import FramePrompts

Mask = NDArray[np.bool_]


def jittered_prompts(mask: Mask, count: int, rng: np.random.Generator) -> list[FramePrompts]:
    """Boxes around a mask as several hands would draw them: 10 % of the side, at most 20 pixels (SAM's own).

    Args:
        mask: (H, W) of the native frame, not empty.
        count: of boxes.
        rng: source of the randomness.

    Raises:
        PromptError: the mask is empty.
    """
    return [FramePrompts.of_box(jittered_box(mask, rng)) for _ in range(count)]


def disagreement(masks: Sequence[Mask]) -> float | None:
    """Mean of 1 - IoU over all pairs of masks; two empty masks agree.

    Args:
        masks: of one shape.

    Returns:
        0 (all the same) to 1 (no two overlap); None for fewer than two.
    """
    pairs = list(itertools.combinations(masks, 2))
    if not pairs:
        return None
    return float(np.mean([1.0 - jaccard(first, second) for first, second in pairs]))
