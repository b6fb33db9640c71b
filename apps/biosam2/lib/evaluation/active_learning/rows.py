"""The points of the curves, and their file: what was simulated once is not simulated again."""

from __future__ import annotations

import csv
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from lib.evaluation.csv_lines import cells_of
from lib.files import write_atomically

logger = logging.getLogger(__name__)

_HEADER = ("run", "strategy", "seed", "labels", "dice", "by_prompt", "labelled", "next", "seconds")


@dataclass(frozen=True)
class Point:
    """One training of one simulated annotation.

    Attributes:
        run: what its values depend on besides strategy and seed.
        strategy: that chose.
        seed: of the simulation.
        labels: units that were labelled.
        dice: of the network that learned from them, on the test part.
        by_prompt: the same by kind of prompt.
        labelled: their ids, in the order in which they were chosen.
        next: what the strategy chose then; empty after the last training.
        seconds: that training, measuring and choosing took.
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


class PointsFile:
    """``curve.csv``: points that survive the process.

    Points of other options may lie in it too; nobody is given them by mistake.

    Args:
        path: of the file; made with the first point.

    Raises:
        EvaluationError: the file is none of this program's.
    """

    def __init__(self, path: Path):
        self._path = path
        self._points: dict[tuple[str, str, int, int], Point] = {}
        if path.exists():
            self._load()

    def get(self, run: str, strategy: str, seed: int, labels: int) -> Point | None:
        """The point of a key; None where it was not computed yet."""
        return self._points.get((run, strategy, seed, labels))

    def add(self, point: Point) -> None:
        """Adds a point; it is on the disk when this returns."""
        self._points[point.key] = point
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows(_line(item) for item in self._points.values())
        # A few hundred short lines: written whole, they can be damaged by nothing.
        write_atomically(self._path, text.getvalue().encode())

    def _load(self) -> None:
        text = self._path.read_text(encoding="utf-8", errors="replace")
        for line in cells_of([line for line in text.split("\n") if line], _HEADER, self._path):
            try:
                point = _point(line)
            except (ValueError, TypeError, AttributeError):
                logger.warning("a line of %s cannot be read and is computed again", self._path.name)
            else:
                self._points[point.key] = point


def _line(point: Point) -> list[str]:
    # repr gives floats back bit by bit, so that a resumed simulation equals an uninterrupted one.
    return [
        point.run,
        point.strategy,
        str(point.seed),
        str(point.labels),
        repr(point.dice),
        json.dumps(point.by_prompt),
        json.dumps(point.labelled, ensure_ascii=False),
        json.dumps(point.next, ensure_ascii=False),
        f"{point.seconds:.2f}",
    ]


def _point(line: list[str]) -> Point:
    """Reads one line back.

    Raises:
        ValueError, TypeError, AttributeError: it is not whole.
    """
    cells = dict(zip(_HEADER, line, strict=True))
    by_prompt = {str(name): float(value) for name, value in json.loads(cells["by_prompt"]).items()}
    return Point(
        run=cells["run"],
        strategy=cells["strategy"],
        seed=int(cells["seed"]),
        labels=int(cells["labels"]),
        dice=float(cells["dice"]),
        by_prompt=by_prompt,
        labelled=tuple(json.loads(cells["labelled"])),
        next=tuple(json.loads(cells["next"])),
        seconds=float(cells["seconds"]),
    )
