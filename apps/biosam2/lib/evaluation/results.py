"""Results, their file, and tables in the paper's form."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pandas

from lib.errors import EvaluationError
from lib.files import write_atomically

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

Key = Hashable


@dataclass(frozen=True)
class ResultRow:
    """Metrics of one object of one image with one kind of prompt.

    Attributes:
        run: Hash of everything else that decides the values (``runner.fingerprint``).
        image: Case id.
        content: Hash of image and ground truth.
        object: Object value in the ground truth; 0 for all objects of a frame together.
        label: Class of the object; empty for all objects together.
        frame: Frame index in the image pipeline; None in the others.
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


class KeyedRow(Protocol):
    """A row of a file; rows with equal keys have equal values."""

    @property
    def key(self) -> Key:
        """Everything that decides the values."""


Row = TypeVar("Row", bound=KeyedRow)


class RowsFile(Generic[Row]):
    """A CSV file of computed rows, which survive the process and are not computed again.

    Rows of other options, weights or images may be in it too: the key tells them apart.

    Args:
        path: Path of the file, created with the first rows.
        header: Column titles.
        cells: Function from a row to its cells.
        parse: Function from cells by column title to a row; it raises an exception for damaged cells.

    Raises:
        EvaluationError: the file has other columns.
    """

    def __init__(
        self,
        path: Path,
        header: Sequence[str],
        cells: Callable[[Row], Sequence[str]],
        parse: Callable[[dict[str, Any]], Row],
    ) -> None:
        self._path, self._header, self._cells, self._parse = path, list(header), cells, parse
        self._rows: dict[Key, Row] = {}
        if path.exists():
            self._load()

    def get(self, key: Key) -> Row | None:
        """The row with a key; None if it was not computed yet."""
        return self._rows.get(key)

    def append(self, rows: Iterable[Row]) -> None:
        """Adds rows, or replaces those with equal keys; they are on the disk when this returns."""
        new = list(rows)
        is_new = bool(self._rows) and not any(row.key in self._rows for row in new)
        self._rows.update((row.key, row) for row in new)
        if not is_new:
            write_atomically(self._path, self._text([self._header, *map(self._cells, self._rows.values())]))
            return
        with self._path.open("ab") as file:
            file.write(self._text(map(self._cells, new)))
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _text(lines: Iterable[Sequence[str]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue().encode()

    def _load(self) -> None:
        """Reads line by line, so that a damaged line affects no other."""
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            logger.warning("%s ends within a line, which is computed again", self._path.name)
            os.truncate(self._path, len(whole))
        lines = [line for line in whole.decode("utf-8", errors="replace").split("\n") if line]
        cells = [next(csv.reader([line]), []) for line in lines]
        if cells and cells[0] != self._header:
            raise EvaluationError(
                f"{self._path} has other columns than this program writes: choose another --output, or move "
                "the file"
            )
        for line in cells[1:]:
            try:
                row = self._parse(dict(zip(self._header, line, strict=True)))
            except (ValueError, TypeError, AttributeError):
                logger.warning("A line of %s cannot be read and is computed again", self._path.name)
            else:
                self._rows[row.key] = row


def results_file(path: Path) -> RowsFile[ResultRow]:
    """The file of an evaluation's rows, ``results.csv``."""
    return RowsFile(path, _HEADER, _cells, _row)


def _cells(row: ResultRow) -> list[str]:
    # repr restores floats exactly, so that a resumed evaluation equals an uninterrupted one.
    values = [repr(row.values[name]) if name in row.values else "" for name in METRICS]
    cells = ("" if (cell := getattr(row, name)) is None else str(cell) for name in _COLUMNS)
    return [*(" ".join(cell.splitlines()) for cell in cells), *values]


def _row(cells: dict[str, Any]) -> ResultRow:
    given = {name: cells.pop(name) for name in METRICS}
    values = {name: float(text) for name, text in given.items() if text}
    cells["object"], cells["frames"] = int(cells["object"]), int(cells["frames"])
    cells["frame"] = int(cells["frame"]) if cells["frame"] else None
    return ResultRow(**cells, values=values)


@dataclass(frozen=True)
class MetricSummary:
    """Mean of the finite values of one metric, and their sample standard deviation.

    ``missed`` of ``count`` values are infinite: the HD95 of objects that were not found.
    """

    mean: float
    deviation: float | None
    count: int
    missed: int

    def __str__(self) -> str:
        text = f"{self.mean:.4f}" if math.isfinite(self.mean) else "-"
        if self.deviation is not None:
            text += f" ± {self.deviation:.4f}"
        return f"{text} ({self.missed} of {self.count} not found)" if self.missed else text


@dataclass(frozen=True)
class ResultTable:
    """A table of texts.

    Attributes:
        best: Row and column of the cells that are the best among their rivals.
        detail: Whether the table details another one.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    detail: bool = False

    def markdown(self) -> str:
        """The table with its title in Markdown, the best cells in bold."""
        return "\n".join([f"## {self.title}", "", markdown_table(self.header, self.marked("**", "**")), ""])

    def marked(self, before: str, after: str) -> list[list[str]]:
        """The rows, with two texts around the best cells."""
        return [
            [
                f"{before}{cell}{after}" if (down, across) in self.best else cell
                for across, cell in enumerate(row)
            ]
            for down, row in enumerate(self.rows)
        ]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub table: the first column aligned left, all others right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def summarise(values: Sequence[float] | pandas.Series) -> MetricSummary:
    """Mean and standard deviation; infinite values are counted separately."""
    series = pandas.Series(values, dtype=float)
    finite = series[np.isfinite(series)]
    return MetricSummary(
        mean=float(finite.mean()) if len(finite) else math.inf,
        deviation=float(finite.std()) if len(finite) > 1 else None,
        count=len(series),
        missed=len(series) - len(finite),
    )


def tables(rows: Sequence[ResultRow]) -> list[ResultTable]:
    """One table by prompt and one by class for each pipeline.

    Columns are the metrics, as in Tables 1 and 2 of the paper. A video has one table per metric, with the
    numbers of prompted frames as columns, as in Table 4; only J&F has one by class.
    """
    made: list[ResultTable] = []
    for pipeline, chosen in as_frame(rows).groupby("pipeline", sort=False):
        metrics = [name for name in METRICS if chosen[name].notna().any()]
        if pipeline == "video":
            counts = sorted(chosen["frames"].unique())
            for number, metric in enumerate(metrics):
                columns = [_Column(f"{count} frame{'s' * (count > 1)}", metric, count) for count in counts]
                both = _by_prompt_and_class(f"{pipeline}: {TITLES[metric]}", columns, chosen)
                made.extend(both if number == 0 else both[:1])
        else:
            columns = [_Column(TITLES[name], name) for name in metrics]
            made.extend(_by_prompt_and_class(str(pipeline), columns, chosen))
    return made


def as_frame(rows: Sequence[ResultRow]) -> pandas.DataFrame:
    """One line per row, one column per attribute and metric; absent metrics are NaN."""
    records = [{**vars(row), **dict.fromkeys(METRICS, math.nan), **row.values} for row in rows]
    return pandas.DataFrame(records, columns=[*ResultRow.__dataclass_fields__, *METRICS])


def paper_table(rows: Sequence[Mapping[str, str | float]]) -> ResultTable:
    """Published results for the same data."""
    texts = [{TITLES.get(name, name): _text(name, value) for name, value in row.items()} for row in rows]
    header = list(dict.fromkeys(name for row in texts for name in row))
    return ResultTable(
        "For comparison, as published",
        [name.capitalize() if name.islower() else name for name in header],
        [[row.get(name, "") for name in header] for row in texts],
    )


@dataclass(frozen=True)
class _Column:
    title: str
    metric: str
    frames: int | None = None

    def summary(self, rows: pandas.DataFrame) -> MetricSummary | None:
        """Summary of this column's values; None without any."""
        chosen = rows if self.frames is None else rows[rows["frames"] == self.frames]
        values = chosen[self.metric].dropna()
        return summarise(values) if len(values) else None


def _by_prompt_and_class(title: str, columns: Sequence[_Column], rows: pandas.DataFrame) -> list[ResultTable]:
    """The table by prompt, and the one by class if there are several classes."""
    made = [_table(title, ["prompt", "weights"], columns, rows)]
    objects = rows[rows["object"] != 0].sort_values("label", kind="stable")
    if objects["label"].nunique() > 1:
        table = _table(f"{title}, by class", ["label", "prompt", "weights"], columns, objects)
        made.append(replace(table, detail=True))
    return made


def _table(
    title: str, keys: Sequence[str], columns: Sequence[_Column], rows: pandas.DataFrame
) -> ResultTable:
    """One line per group of equal keys, the last of which is the weights."""
    groups = dict(iter(rows.groupby(list(keys), sort=False)))
    summaries = [[column.summary(group) for column in columns] for group in groups.values()]
    # Weights are compared under one prompt, the prompts of a single network with each other.
    rivals = [key[: -1 if rows["weights"].nunique() > 1 else -2] for key in groups]
    means = pandas.DataFrame(
        [[math.nan if cell is None else cell.mean for cell in line] for line in summaries]
    )
    signs = [-1 if column.metric in LOWER_IS_BETTER else 1 for column in columns]
    compared = (means * signs).groupby(pandas.Series(rivals), sort=False)
    best = (means * signs == compared.transform("max")) & (compared.transform("count") > 1)
    lines = [
        [*key, str(_objects(group)), *("" if cell is None else str(cell) for cell in line)]
        for (key, group), line in zip(groups.items(), summaries, strict=True)
    ]
    names = ["Class" if name == "label" else name.capitalize() for name in keys]
    marks = frozenset(
        (int(down), int(across) + len(keys) + 1) for down, across in np.argwhere(best.to_numpy())
    )
    return ResultTable(title, [*names, "Objects", *(column.title for column in columns)], lines, marks)


def _objects(rows: pandas.DataFrame) -> int:
    """Number of distinct objects."""
    return len(rows.loc[rows["object"] != 0, ["image", "object"]].drop_duplicates())


def _text(name: str, value: str | float) -> str:
    return f"{value:.4f}" if name in TITLES and isinstance(value, float) else str(value)
