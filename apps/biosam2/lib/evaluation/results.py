"""Results and their file: computed results survive the process and are not computed again."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lib.errors import EvaluationError

logger = logging.getLogger(__name__)

# All metrics of all pipelines; a row leaves the others empty.
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
class ResultRow:
    """Metrics of one object of one image with one kind of prompt.

    Attributes:
        run: Hash of everything else that decides the values (``models.fingerprint``).
        weights: Name of the weights.
        pipeline: ``image``, ``volume`` or ``video``.
        image: Case id.
        content: Hash of image and ground truth (``LabelledSequence.content``).
        object: Object value in the ground truth; 0 for all objects of a frame together.
        label: Class of the object; empty for all objects together.
        frame: Frame index in the image pipeline; None in the others.
        prompt: Name of the kind of prompt.
        frames: Number of prompted frames.
        values: Values by metric; infinite for the HD95 of an object that was not found.
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
        """Values for JSON, with null for infinity."""
        record = {name: getattr(self, name) for name in _COLUMNS}
        values = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return {**record, **values}


_COLUMNS = tuple(field.name for field in fields(ResultRow) if field.name != "values")
_HEADER = (*_COLUMNS, *METRICS)


class ResultsFile:
    """``results.csv``. Rows of other options, weights or images may be in it too: the key tells them apart.

    Args:
        path: Path of the file, created with the first rows.

    Raises:
        EvaluationError: the file has other columns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[Key, ResultRow] = {}
        if path.exists():
            self._load()

    def get(self, key: Key) -> ResultRow | None:
        """The row with a key; None if it was not computed yet."""
        return self._rows.get(key)

    def append(self, rows: Iterable[ResultRow]) -> None:
        """Adds rows; they are on the disk when this returns."""
        new = list(rows)
        text = csv_text(map(_cells, new))
        if not self._path.exists() or not self._path.stat().st_size:
            text = csv_text([_HEADER]) + text
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self._rows.update((row.key, row) for row in new)

    def _load(self) -> None:
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            logger.warning("%s ends within a line, which is computed again", self._path.name)
            os.truncate(self._path, len(whole))
        for cells in read_lines(whole, _HEADER, self._path):
            try:
                row = _row(cells)
            except ValueError:
                logger.warning("A line of %s cannot be read and is computed again", self._path.name)
            else:
                self._rows[row.key] = row


def csv_text(lines: Iterable[Sequence[str]]) -> str:
    """Cells as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def read_lines(content: bytes, header: Sequence[str], path: Path) -> Iterator[list[str]]:
    """Cells of a CSV file without its header, line by line, so that a damaged line affects no other.

    Args:
        content: Content of the file.
        header: Required header.
        path: Path for the error message.

    Raises:
        EvaluationError: the file has another header.
    """
    lines = [line for line in content.decode("utf-8", errors="replace").split("\n") if line]
    cells = [next(csv.reader([line]), []) for line in lines]
    if cells and cells[0] != list(header):
        raise EvaluationError(
            f"{path} has other columns than this program writes: choose another --output, or move the file"
        )
    return iter(cells[1:])


def _cells(row: ResultRow) -> list[str]:
    # repr restores floats exactly, so that a resumed evaluation equals an uninterrupted one.
    values = [repr(row.values[name]) if name in row.values else "" for name in METRICS]
    cells = ("" if (cell := getattr(row, name)) is None else str(cell) for name in _COLUMNS)
    return [*(" ".join(cell.splitlines()) for cell in cells), *values]


def _row(line: list[str]) -> ResultRow:
    """Reads one line.

    Raises:
        ValueError: the line is incomplete.
    """
    cells: dict[str, Any] = dict(zip(_HEADER, line, strict=True))
    given = {name: cells.pop(name) for name in METRICS}
    values = {name: float(text) for name, text in given.items() if text}
    cells["object"], cells["frames"] = int(cells["object"]), int(cells["frames"])
    cells["frame"] = int(cells["frame"]) if cells["frame"] else None
    return ResultRow(**cells, values=values)
