"""What a simulation leaves behind beside ``curve.csv``: a figure, tables, and all of it as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lib.evaluation.active_learning.options import CurveOptions
from lib.evaluation.active_learning.rows import Point
from lib.evaluation.active_learning.summary import Verdict, judge, points_table, summary_table
from lib.files import write_atomically
from lib.reports.figures import curves

JSON_FILE, TABLE_FILE, FIGURE_FILE = "curve.json", "curve.md", "curve.png"

_READING = (
    "Area: mean Dice over the range of labels. In brackets, between which values 95 of 100 resamples of the "
    "seeds lie. Labels to random's end: at which share of its labels the mean curve first reaches the Dice "
    "that random has at the end; random's own share says how much of that is the noise of its curve."
)


def write_curve(points: Sequence[Point], options: CurveOptions, facts: Mapping[str, object]) -> str:
    """Writes everything but ``curve.csv``, which is there already.

    Args:
        points: of all strategies and seeds.
        options: of the simulation; ``output`` is the folder.
        facts: what a reader should know of it.

    Returns:
        The tables, in Markdown.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    verdicts = judge(points)
    record = {
        "options": {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()
        },
        "facts": dict(facts),
        "strategies": [verdict.as_record() for verdict in verdicts],
        "points": [asdict(point) for point in points],
    }
    title = f"{options.data.resolve().name}: Dice by labels, mean of {options.seeds} seeds"
    _write(
        options.output / JSON_FILE, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    write_atomically(
        options.output / FIGURE_FILE, curves(_series(verdicts), f"labelled {options.unit}s", "Dice", title)
    )
    text = "\n".join([f"# Active learning: {options.data.resolve().name}", "", *_tables(verdicts)])
    _write(options.output / TABLE_FILE, text)
    return "\n".join(_tables(verdicts))


def _series(verdicts: Sequence[Verdict]) -> dict[str, list[tuple[float, float]]]:
    return {
        verdict.strategy: [
            (float(count), mean) for count, mean in zip(verdict.labels, verdict.mean, strict=True)
        ]
        for verdict in verdicts
    }


def _tables(verdicts: Sequence[Verdict]) -> list[str]:
    return [summary_table(verdicts).markdown(), _READING, "", points_table(verdicts).markdown()]


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
