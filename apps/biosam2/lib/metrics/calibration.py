"""Calibration of predicted confidence: isotonic regression, reliability diagram, calibration error.

Every measure takes predicted and true values of the same objects, and raises ``ValueError`` if they are of
different lengths or not finite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

# Below this number of pairs the curve would follow their noise.
LEAST_PAIRS = 20
_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Monotone curve from predicted to true value, linear between its knots and constant beyond them.

    Attributes:
        predicted: Knots in ascending order; empty for the identity.
        true: Value of the curve at each knot.
        pairs: Number of pairs in the fit.
        images: Number of labelled images that the pairs come from, also if there were too few pairs.
    """

    predicted: tuple[float, ...] = ()
    true: tuple[float, ...] = ()
    pairs: int = 0
    images: int = 0

    def __call__(self, value: float) -> float:
        """Expected true value, 0 to 1, for a predicted one."""
        if not self.predicted:
            return value
        return float(np.interp(value, self.predicted, self.true))

    @property
    def name(self) -> str:
        """Digest of the curve; empty for the identity."""
        if not self.predicted:
            return ""
        return hashlib.sha256(repr((self.predicted, self.true)).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """The calibration as plain JSON; ``from_json`` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Calibration:
        """Reads what ``to_json`` wrote."""
        predicted, true = (tuple(float(value) for value in facts[name]) for name in ("predicted", "true"))
        return cls(predicted, true, int(facts["pairs"]), int(facts["images"]))


IDENTITY = Calibration()


def fit_calibration(predicted: Sequence[float], true: Sequence[float]) -> Calibration:
    """Fits the monotone curve with the least squared error (isotonic regression, Barlow et al. 1972).

    Fewer than ``LEAST_PAIRS`` pairs give the identity.
    """
    x, y = _pairs(predicted, true)
    if x.size < LEAST_PAIRS:
        return IDENTITY
    # Equal predictions form one knot with their mean, weighted by their number.
    knots, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=y) / counts
    fitted = isotonic_regression(means, weights=counts).x
    # Knots inside a constant stretch add nothing.
    kept = np.ones(knots.size, dtype=bool)
    kept[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    predicted_knots, true_knots = (tuple(np.round(values[kept], 6).tolist()) for values in (knots, fitted))
    return Calibration(predicted_knots, true_knots, int(x.size))


@dataclass(frozen=True)
class ReliabilityBin:
    """Means of one bin of a reliability diagram."""

    predicted: float
    true: float
    count: int


def reliability_diagram(
    predicted: Sequence[float], true: Sequence[float], bins: int = _BINS
) -> list[ReliabilityBin]:
    """Mean true value by predicted value, in equal bins of 0 to 1; empty bins are left out."""
    x, y = _pairs(predicted, true)
    number = np.clip((x * bins).astype(int), 0, bins - 1)
    return [
        ReliabilityBin(float(x[number == n].mean()), float(y[number == n].mean()), int((number == n).sum()))
        for n in np.unique(number)
    ]


def expected_calibration_error(predicted: Sequence[float], true: Sequence[float]) -> float:
    """Mean distance of predicted and true value over the bins, weighted by their pairs (Naeini et al. 2015).

    Returns:
        0 (calibrated) to 1; 0 without pairs.
    """
    diagram = reliability_diagram(predicted, true)
    total = sum(item.count for item in diagram)
    return sum(item.count * abs(item.predicted - item.true) for item in diagram) / total if total else 0.0


def _pairs(predicted: Sequence[float], true: Sequence[float]) -> tuple[NDArray, NDArray]:
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if x.shape != y.shape or not np.isfinite([*x, *y]).all():
        raise ValueError(f"{x.size} predicted and {y.size} true values are no pairs of finite numbers")
    return x, y
