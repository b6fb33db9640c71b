"""Combination of signals into one score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from lib.metrics.calibration import IDENTITY, Calibration

ENTROPY, JITTER, PRESENCE, IOU, STABILITY = "entropy", "jitter", "presence", "predicted_iou", "stability"
SIGNALS = (ENTROPY, JITTER, PRESENCE, IOU, STABILITY)

# Proportional to the rank correlation with the true error of the bundled weights on CT, MR, nuclei and EM
# (`python -m benchmarks.signals`), in coarse steps, since those are 14 images. Their occlusion head is nearly
# always sure; if it is not, this is the only sign of the end of an object.
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {STABILITY: 0.3, IOU: 0.25, ENTROPY: 0.2, JITTER: 0.2, PRESENCE: 0.05}
)
# Value of a signal that could not be computed: neither sure nor unsure.
UNKNOWN = 0.5


def combine(parts: Mapping[str, float], calibration: Calibration = IDENTITY) -> float:
    """Weighted mean of the signals: 0 (sure) to 1 (unsure).

    A missing signal counts as ``UNKNOWN``, so that a single signal never makes up the whole score.

    Args:
        parts: Signals by name, 0 to 1; the predicted IoU uncalibrated.
        calibration: Calibration of the predicted IoU.
    """
    told = dict(parts)
    if IOU in told:
        told[IOU] = 1.0 - calibration(1.0 - told[IOU])
    score = sum(weight * told.get(name, UNKNOWN) for name, weight in WEIGHTS.items())
    return float(np.clip(score / sum(WEIGHTS.values()), 0.0, 1.0))


def mean_parts(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each signal over the mappings that contain it, in the order of ``SIGNALS``."""
    collected: dict[str, list[float]] = {}
    for parts in several:
        for name, value in parts.items():
            collected.setdefault(name, []).append(value)
    means = {name: float(np.mean(collected[name])) for name in SIGNALS if name in collected}
    return {name: min(max(value, 0.0), 1.0) for name, value in means.items()}
