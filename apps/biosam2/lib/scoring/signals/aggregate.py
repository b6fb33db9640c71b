"""From signals to one score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from lib.scoring.signals.calibration import IDENTITY, Calibration

ENTROPY, JITTER, PRESENCE, IOU, STABILITY = "entropy", "jitter", "presence", "predicted_iou", "stability"
SIGNALS = (ENTROPY, JITTER, PRESENCE, IOU, STABILITY)

# In proportion to the rank correlation with the true error of the bundled weights on CT, MR, nuclei and EM
# (`python -m benchmarks.signals`), in coarse steps, for those are 14 images. Their occlusion head is nearly
# always sure; where it is not, its doubt is the only sign that an object ends.
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {STABILITY: 0.3, IOU: 0.25, ENTROPY: 0.2, JITTER: 0.2, PRESENCE: 0.05}
)
# What a signal counts as that could not be told: neither sure nor unsure.
UNKNOWN = 0.5


def combine(parts: Mapping[str, float], calibration: Calibration = IDENTITY) -> float:
    """The weighted mean of the signals: 0 (sure) to 1 (unsure).

    A signal that is missing counts as undecided, so that one alone never makes the whole score.

    Args:
        parts: signals by name, 0 to 1. That of the predicted IoU is as the network says it.
        calibration: of the predicted IoU.
    """
    told = dict(parts)
    if IOU in told:
        told[IOU] = 1.0 - calibration(1.0 - told[IOU])
    score = sum(weight * told.get(name, UNKNOWN) for name, weight in WEIGHTS.items())
    return float(np.clip(score / sum(WEIGHTS.values()), 0.0, 1.0))


def mean_parts(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each signal over those that have it, in the order of ``SIGNALS``."""
    collected: dict[str, list[float]] = {}
    for parts in several:
        for name, value in parts.items():
            collected.setdefault(name, []).append(value)
    means = {name: float(np.mean(collected[name])) for name in SIGNALS if name in collected}
    return {name: min(max(value, 0.0), 1.0) for name, value in means.items()}
