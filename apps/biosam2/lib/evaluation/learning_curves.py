"""Learning curves: points in ``curve.csv``, comparison with random choice, and output files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy.integrate import trapezoid
from scipy.stats import bootstrap

from lib.evaluation.options import CONTROL, SimulationOptions
from lib.evaluation.results import ResultTable, RowsFile
from lib.files import write_atomically
from lib.reports.figures import curves

JSON_FILE, TABLE_FILE, FIGURE_FILE = "curve.json", "curve.md", "curve.png"
# Bootstrap over the seeds: number of resamples, its seed, and the confidence level of the interval.
RESAMPLES, _SEED, CONFIDENCE = 10_000, 0, 0.95
# Share of labels that stands for "never" in the bootstrap: every real share is at most 1.
_NEVER = 2.0
_READING = (
    "Area: mean Dice over the range of labels. In brackets: 95% bootstrap interval over the seeds. Labels to "
    "random's end: share of its labels at which the mean curve first reaches the last Dice of random; "
    "random's own share shows how much of that is noise of its curve."
)

Curves = NDArray[np.float64]
# A value for the seeds at some places.
Statistic = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True)
class CurvePoint:
    """One training of one simulated annotation.

    Attributes:
        run: Hash of everything that decides the values besides strategy and seed.
        labels: Number of labelled units.
        dice: Dice of the trained network on the test set; ``by_prompt`` by kind of prompt.
        labelled: Ids of the labelled units in the order of labelling.
        next: Ids of the units to label next; empty after the last training.
        seconds: Duration of training, testing and choosing.
    """

    run: str
    strategy: str
    seed: int
    labels: int
    dice: float
    by_prompt: dict[str, float]
    labelled: tuple[str, ...]
    next: tuple[str, ...]
    seconds: float

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Equal for points that must have equal values."""
        return self.run, self.strategy, self.seed, self.labels


_HEADER = tuple(field.name for field in fields(CurvePoint))


def points_file(path: Path) -> RowsFile[CurvePoint]:
    """The file of a simulation's points, ``curve.csv``."""
    return RowsFile(path, _HEADER, _cells, _point)


def _cells(point: CurvePoint) -> list[str]:
    # JSON restores floats exactly, so that a resumed simulation equals an uninterrupted one.
    cells = [
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in astuple(point)
    ]
    return [*cells[:-1], f"{point.seconds:.2f}"]


def _point(cells: dict[str, str]) -> CurvePoint:
    texts = ("run", "strategy")
    values = {name: cell if name in texts else json.loads(cell) for name, cell in cells.items()}
    return TypeAdapter(CurvePoint).validate_python(values)


@dataclass(frozen=True)
class Interval:
    """A value over all seeds, infinite if the goal was not reached, with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class StrategyResult:
    """The learning curve of one strategy.

    Attributes:
        strategy: Name of the strategy.
        labels: Numbers of labels.
        mean: Mean Dice over the seeds at each number of labels.
        deviation: Sample standard deviation over the seeds at each; 0 for a single seed.
        area: Area under the curve divided by the range of labels: its mean height.
        gain: Area minus that of random, paired by seed; None for random.
        needed: Labels until the mean curve first reaches the last Dice of random, as a share of random's
            labels; infinite if it never does.
    """

    strategy: str
    labels: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    area: Interval
    gain: Interval | None
    needed: Interval

    def as_record(self) -> dict[str, Any]:
        """Values for JSON, with null for infinity."""
        return {name: _finite(value) for name, value in asdict(self).items()}


def compare(points: Sequence[CurvePoint]) -> list[StrategyResult]:
    """Compares every strategy with random choice.

    Args:
        points: Complete curves: every strategy, ``random`` among them, with the same seeds and labels.
    """
    by_strategy = curves_of(points)
    labels = np.array(sorted({point.labels for point in points}), dtype=np.float64)
    control = by_strategy[CONTROL]
    results = []
    for strategy, own in by_strategy.items():
        gain = area(labels, own) - area(labels, control)
        results.append(
            StrategyResult(
                strategy=strategy,
                labels=tuple(int(count) for count in labels),
                mean=tuple(own.mean(0).tolist()),
                deviation=tuple((own.std(0, ddof=1) if len(own) > 1 else np.zeros(len(labels))).tolist()),
                area=_interval(_mean_of(area(labels, own)), len(own)),
                gain=None if strategy == CONTROL else _interval(_mean_of(gain), len(own)),
                needed=_interval(partial(_share_needed, labels, own, control), len(own)),
            )
        )
    return results


def curves_of(points: Sequence[CurvePoint]) -> dict[str, Curves]:
    """Dice (seeds, labels) by strategy, both ascending."""
    frame = pandas.DataFrame([asdict(point) for point in points])
    return {
        str(strategy): own.pivot(index="seed", columns="labels", values="dice").to_numpy()
        for strategy, own in frame.groupby("strategy", sort=False)
    }


def area(labels: Curves, curves: Curves) -> Curves:
    """Mean height (S,) of curves (S, L): the area by trapezoids divided by the range of labels (L,).

    For a single number of labels it is the value.
    """
    if len(labels) == 1:
        return curves[:, 0]
    found: Curves = trapezoid(curves, labels, axis=1) / (labels[-1] - labels[0])
    return found


def labels_needed(labels: Curves, curve: Curves, goal: float) -> float:
    """Labels at which a curve, linear between its points, first reaches a value; infinite if never."""
    above = np.flatnonzero(curve >= goal)
    if not len(above):
        return math.inf
    place = int(above[0])
    if place == 0:
        return float(labels[0])
    return float(np.interp(goal, curve[place - 1 : place + 1], labels[place - 1 : place + 1]))


def _mean_of(values: Curves) -> Statistic:
    return lambda seeds: float(values[seeds].mean())


def _share_needed(labels: Curves, own: Curves, control: Curves, seeds: NDArray[np.int64]) -> float:
    """Labels until a strategy reaches the last Dice of random, as a share of random's labels."""
    goal = float(control[seeds].mean(0)[-1])
    return labels_needed(labels, own[seeds].mean(0), goal) / float(labels[-1])


def _interval(statistic: Statistic, seeds: int) -> Interval:
    """A statistic over all seeds with its bootstrap interval."""
    places = np.arange(seeds)
    value = statistic(places)
    if seeds == 1:
        return Interval(value, value, value)
    found = bootstrap(
        (places,),
        lambda chosen: min(statistic(chosen), _NEVER),
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(_SEED),
    ).confidence_interval
    low, high = (math.inf if bound > 1 else float(bound) for bound in found)
    return Interval(value, low, high)


def summary_table(results: Sequence[StrategyResult]) -> ResultTable:
    """One line per strategy."""
    header = ["Strategy", "Area under the curve", "against random", "Labels to random's end", "Last Dice"]
    rows = [
        [
            result.strategy,
            _with_bounds(result.area, "{:.4f}"),
            "" if result.gain is None else _with_bounds(result.gain, "{:+.4f}"),
            _with_bounds(result.needed, "{:.0%}"),
            _mean_and_deviation(result)[-1],
        ]
        for result in results
    ]
    return ResultTable("Strategies", header, rows)


def points_table(results: Sequence[StrategyResult]) -> ResultTable:
    """Mean Dice and its deviation over the seeds at each number of labels."""
    rows = [[result.strategy, *_mean_and_deviation(result)] for result in results]
    return ResultTable("Dice by labels", ["Strategy", *(str(count) for count in results[0].labels)], rows)


def write_curve(points: Sequence[CurvePoint], options: SimulationOptions, facts: Mapping[str, object]) -> str:
    """Writes all output files except ``curve.csv``.

    Returns:
        The tables in Markdown.
    """
    results = compare(points)
    name = options.data.resolve().name
    text = "\n".join([summary_table(results).markdown(), _READING, "", points_table(results).markdown()])
    record = {
        "options": options.model_dump(mode="json"),
        "facts": dict(facts),
        "strategies": [result.as_record() for result in results],
        "points": [asdict(point) for point in points],
    }
    series = {
        result.strategy: list(zip(map(float, result.labels), result.mean, strict=True)) for result in results
    }
    title = f"{name}: Dice by labels, mean of {options.seeds} seeds"
    files = {
        JSON_FILE: json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n",
        FIGURE_FILE: curves(series, f"labelled {options.unit}s", "Dice", title),
        TABLE_FILE: "\n".join([f"# Active learning: {name}", "", text]).encode(),
    }
    for file, content in files.items():
        write_atomically(options.output / file, content)
    return text


def _mean_and_deviation(result: StrategyResult) -> list[str]:
    return [
        f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in zip(result.mean, result.deviation, strict=True)
    ]


def _with_bounds(interval: Interval, form: str) -> str:
    value, low, high = (
        form.format(value) if math.isfinite(value) else "never" for value in astuple(interval)
    )
    return f"{value} ({low} to {high})"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
