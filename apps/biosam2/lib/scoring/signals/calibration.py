"""What the network's predicted IoU is worth, learned from labels that people accepted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import isotonic_regression

from lib.files import write_atomically

logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
# Fewer pairs than this say more about themselves than about the network.
LEAST_PAIRS = 20


@dataclass(frozen=True)
class Calibration:
    """A rising curve from predicted to true IoU, straight between its knots and level beyond them.

    Attributes:
        predicted: knots, rising; none for the identity.
        true: the curve's value at each.
        pairs: that it was fitted on.
        images: labelled ones, that the pairs are from; also where they were too few.
    """

    predicted: tuple[float, ...] = ()
    true: tuple[float, ...] = ()
    pairs: int = 0
    images: int = 0

    def __call__(self, iou: float) -> float:
        """The IoU to expect where the network predicts this one, 0 to 1."""
        if not self.predicted:
            return iou
        return float(np.interp(iou, self.predicted, self.true))

    @property
    def name(self) -> str:
        """Another one for another curve; empty for the identity."""
        if not self.predicted:
            return ""
        return hashlib.sha256(repr((self.predicted, self.true)).encode()).hexdigest()[:12]


IDENTITY = Calibration()


def fit_calibration(predicted: Sequence[float], true: Sequence[float]) -> Calibration:
    """The rising curve with the least squared error (isotonic regression); the identity for too few pairs.

    Args:
        predicted: IoU by the network, 0 to 1.
        true: IoU with the accepted label, of the same objects.

    Raises:
        ValueError: the two are of different lengths, or a number is not finite.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if x.shape != y.shape or not np.isfinite([*x, *y]).all():
        raise ValueError(f"{x.size} predicted and {y.size} true IoU are no pairs of finite numbers")
    if x.size < LEAST_PAIRS:
        return IDENTITY
    # Equal predictions are one knot with their mean truth, weighted by their number.
    knots, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=y) / counts
    fitted = isotonic_regression(means, weights=counts).x
    # Inside a level stretch knots say nothing.
    kept = np.ones(knots.size, dtype=bool)
    kept[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    return Calibration(_rounded(knots[kept]), _rounded(fitted[kept]), int(x.size))


def save_calibration(folder: Path, weights: str, calibration: Calibration) -> None:
    """Keeps the calibration of some weights beside the scores.

    Args:
        folder: of the scores.
        weights: what tells these weights from others.
        calibration: to keep.
    """
    facts = {
        "weights": weights,
        "pairs": calibration.pairs,
        "images": calibration.images,
        "predicted": calibration.predicted,
        "true": calibration.true,
    }
    write_atomically(folder / CALIBRATION_FILE, json.dumps(facts, allow_nan=False, indent=1).encode())


def load_calibration(folder: Path, weights: str) -> Calibration:
    """The calibration that was kept for these weights; the identity where there is none."""
    try:
        facts = json.loads((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
        if facts["weights"] != weights:
            return IDENTITY
        counts = int(facts["pairs"]), int(facts["images"])
        return Calibration(tuple(facts["predicted"]), tuple(facts["true"]), *counts)
    except FileNotFoundError:
        return IDENTITY
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The calibration cannot be read and is not used: %s", error)
        return IDENTITY


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
