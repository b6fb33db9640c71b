"""Rows of results, and their file: what was computed once is not computed again."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lib.evaluation.csv_lines import cells_of

logger = logging.getLogger(__name__)

# Every metric of every pipeline; a row leaves those empty that it has none of.
METRICS = ("dice", "nsd", "f1", "hd95", "jf", "j", "f", "jf_tracked")
TITLES: Mapping[str, str] = {
    "dice": "DSC",
    "nsd": "NSD",
    "f1": "F1",
    "hd95": "HD95 (mm)",
    "jf": "J&F",
    "j": "J",
    "f": "F",
    "jf_tracked": "J&F, tracked frames",
}
LOWER_IS_BETTER = frozenset({"hd95"})

Key = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One object of one image with one prompt.

    Attributes:
        run: what its values depend on besides the image (``entrants.fingerprint``).
        weights: name of the weights.
        pipeline: ``image``, ``volume`` or ``video``.
        image: id of the case.
        content: of the image and its truth (``Scene.content``).
        object: value in the truth; 0 for all objects of a frame together.
        label: the object's class; empty for all together.
        frame: of an image trial; empty in the other pipelines.
        prompt: name of the prompt.
        frames: how many frames were prompted.
        values: by metric; infinite for the HD95 of an object that was not found.
    """

    run: str
    weights: str
    pipeline: str
    image: str
    content: str
    object: int
    label: str
    frame: int | None
    prompt: str
    frames: int
    values: Mapping[str, float]

    @property
    def key(self) -> Key:
        """Equal for rows that must have equal values."""
        return (
            self.run, self.pipeline, self.image, self.content, str(self.object),
            "" if self.frame is None else str(self.frame), self.prompt, str(self.frames),
        )  # fmt: skip

    def as_record(self) -> dict[str, Any]:
        """For JSON, which knows no infinity: null stands for it."""
        record = {name: getattr(self, name) for name in _COLUMNS}
        values = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return {**record, **values}


_COLUMNS = tuple(field.name for field in fields(Row) if field.name != "values")
_HEADER = (*_COLUMNS, *METRICS)


class ResultsFile:
    """``results.csv``: rows that survive the process.

    Rows of other options, weights or images may lie in it too; nobody is given them by mistake.

    Args:
        path: of the file; made with the first rows.

    Raises:
        EvaluationError: the file is none of this program's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[Key, Row] = {}
        if path.exists():
            self._load()

    def get(self, key: Key) -> Row | None:
        """The row of a key; None where it was not computed yet."""
        return self._rows.get(key)

    def append(self, rows: Iterable[Row]) -> None:
        """Adds rows and brings them to the disk before it returns."""
        new = list(rows)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._path.exists() or not self._path.stat().st_size:
            writer.writerow(_HEADER)
        for row in new:
            writer.writerow(_line(row))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        self._rows.update((row.key, row) for row in new)

    def _load(self) -> None:
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            logger.warning("%s ends within a line, which is computed again", self._path.name)
            os.truncate(self._path, len(whole))
        lines = whole.decode("utf-8", errors="replace").split("\n")[:-1]
        for line in cells_of(lines, _HEADER, self._path):
            try:
                row = _row(line)
            except ValueError:
                logger.warning("a line of %s cannot be read and is computed again", self._path.name)
            else:
                self._rows[row.key] = row


def _line(row: Row) -> list[str]:
    # repr gives floats back bit by bit, so that a resumed evaluation equals an uninterrupted one.
    values = [repr(row.values[name]) if name in row.values else "" for name in METRICS]
    cells = ("" if (cell := getattr(row, name)) is None else str(cell) for name in _COLUMNS)
    return [*(" ".join(cell.splitlines()) for cell in cells), *values]


def _row(line: list[str]) -> Row:
    """Reads one line back.

    Raises:
        ValueError: it is not whole.
    """
    cells: dict[str, Any] = dict(zip(_HEADER, line, strict=True))
    given = {name: cells.pop(name) for name in METRICS}
    values = {name: float(text) for name, text in given.items() if text}
    cells["object"], cells["frames"] = int(cells["object"]), int(cells["frames"])
    cells["frame"] = int(cells["frame"]) if cells["frame"] else None
    return Row(**cells, values=values)
