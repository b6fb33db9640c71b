"""What the curves say: areas under them, against chance, and how many labels were saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.evaluation.active_learning.options import CONTROL
from lib.evaluation.active_learning.rows import Point
from lib.evaluation.summary import Table

Curves = NDArray[np.float64]
# Of some seeds, by their places.
Statistic = Callable[[NDArray[np.int64]], float]

# Of the bootstrap: resamples, its seed, and the share that lies within the interval.
RESAMPLES, _SEED, CONFIDENCE = 10_000, 0, 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over the seeds with its bootstrap interval (percentiles, 95 %).

    Attributes:
        value: of all seeds.
        low, high: between which it lies in 95 of 100 resamples; infinite where the goal was not reached.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """One strategy.

    Attributes:
        strategy: its name.
        labels: at which was measured.
        mean: Dice at each, mean over the seeds.
        deviation: of the sample of seeds at each; 0 for a single seed.
        area: mean Dice under the curve, over the range of labels.
        gain: area minus that of chance, seed by seed; None for chance itself.
        needed: labels at which the mean curve first reaches what chance has at its end, as a share of its
            labels; infinite where it never does.
    """

    strategy: str
    labels: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    area: Interval
    gain: Interval | None
    needed: Interval

    def as_record(self) -> dict[str, Any]:
        """For JSON, which knows no infinity: null stands for it."""
        finite = {name: _finite(value) for name, value in asdict(self).items()}
        return finite


def judge(points: Sequence[Point]) -> list[Verdict]:
    """Every strategy against chance.

    Args:
        points: of at least one whole curve of chance; of every strategy as many seeds, at the same labels.
    """
    curves = curves_of(points)
    labels = np.array(sorted({point.labels for point in points}), dtype=np.float64)
    chance = curves[CONTROL]
    draws = np.random.default_rng(_SEED).integers(len(chance), size=(RESAMPLES, len(chance)))
    verdicts = []
    for strategy, own in curves.items():
        gain = area(labels, own) - area(labels, chance)
        verdicts.append(
            Verdict(
                strategy=strategy,
                labels=tuple(int(count) for count in labels),
                mean=tuple(own.mean(0).tolist()),
                deviation=tuple((own.std(0, ddof=1) if len(own) > 1 else np.zeros(len(labels))).tolist()),
                area=_interval(_mean_of(area(labels, own)), draws),
                gain=None if strategy == CONTROL else _interval(_mean_of(gain), draws),
                needed=_interval(_share_needed(labels, own, chance), draws),
            )
        )
    return verdicts


def curves_of(points: Sequence[Point]) -> dict[str, Curves]:
    """Dice by strategy: (seeds, labels), both rising."""
    values: dict[str, dict[tuple[int, int], float]] = {}
    for point in points:
        values.setdefault(point.strategy, {})[point.seed, point.labels] = point.dice
    seeds = sorted({point.seed for point in points})
    labels = sorted({point.labels for point in points})
    return {
        strategy: np.array([[found[seed, count] for count in labels] for seed in seeds])
        for strategy, found in values.items()
    }


def area(labels: Curves, curves: Curves) -> Curves:
    """Area under curves by trapezoids, divided by the range of labels: their mean height.

    Args:
        labels: (L,) rising.
        curves: (S, L).

    Returns:
        (S,); for a single label count its value.
    """
    if len(labels) == 1:
        return curves[:, 0]
    heights = (curves[:, 1:] + curves[:, :-1]) / 2
    found: Curves = (heights * np.diff(labels)).sum(1) / (labels[-1] - labels[0])
    return found


def labels_needed(labels: Curves, curve: Curves, goal: float) -> float:
    """Labels at which a curve, straight between its points, first reaches a value; infinite if never."""
    above = np.flatnonzero(curve >= goal)
    if not len(above):
        return float("inf")
    place = int(above[0])
    if place == 0:
        return float(labels[0])
    share = (goal - curve[place - 1]) / (curve[place] - curve[place - 1])
    return float(labels[place - 1] + share * (labels[place] - labels[place - 1]))


def summary_table(verdicts: Sequence[Verdict]) -> Table:
    """One line for each strategy."""
    header = ["Strategy", "Area under the curve", "against random", "Labels to random's end", "Last Dice"]
    rows = [
        [
            verdict.strategy,
            _between(verdict.area, "{:.4f}"),
            "" if verdict.gain is None else _between(verdict.gain, "{:+.4f}"),
            _between(verdict.needed, "{:.0%}"),
            f"{verdict.mean[-1]:.4f} ± {verdict.deviation[-1]:.4f}",
        ]
        for verdict in verdicts
    ]
    return Table("Strategies", header, rows)


def points_table(verdicts: Sequence[Verdict]) -> Table:
    """Mean Dice and its deviation over the seeds, at each number of labels."""
    rows = [
        [
            verdict.strategy,
            *(
                f"{mean:.4f} ± {spread:.4f}"
                for mean, spread in zip(verdict.mean, verdict.deviation, strict=True)
            ),
        ]
        for verdict in verdicts
    ]
    return Table("Dice by labels", ["Strategy", *(str(count) for count in verdicts[0].labels)], rows)


def _mean_of(values: Curves) -> Statistic:
    return lambda seeds: float(values[seeds].mean())


def _share_needed(labels: Curves, own: Curves, chance: Curves) -> Statistic:
    """Labels that a strategy needs for the last Dice of chance, as a share of the labels of chance."""
    return lambda seeds: (
        labels_needed(labels, own[seeds].mean(0), float(chance[seeds].mean(0)[-1])) / float(labels[-1])
    )


def _interval(statistic: Statistic, draws: NDArray[np.int64]) -> Interval:
    """A statistic of all seeds, and its percentiles over resamples of them."""
    found = np.sort([statistic(rows) for rows in draws])
    tail = (1 - CONFIDENCE) / 2
    # Whole ranks: between a number and infinity there is nothing to interpolate.
    low, high = (found[round(share * (len(found) - 1))] for share in (tail, 1 - tail))
    return Interval(statistic(np.arange(draws.shape[1])), float(low), float(high))


def _between(interval: Interval, form: str) -> str:
    def text(value: float) -> str:
        return form.format(value) if np.isfinite(value) else "never"

    return f"{text(interval.value)} ({text(interval.low)} to {text(interval.high)})"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value
