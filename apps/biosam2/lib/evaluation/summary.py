"""Tables in the paper's form: mean and standard deviation, the best in bold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lib.evaluation.results import LOWER_IS_BETTER, METRICS, TITLES, Row

Group = tuple[str, ...]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of one metric.

    Attributes:
        mean: of the finite values.
        deviation: of the sample; None for fewer than two values.
        count: values, infinite ones among them.
        missed: infinite ones, such as the HD95 of an object that was not found; they are in no mean.
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
class Table:
    """A table of texts.

    Attributes:
        title: for people.
        header: one text for each column.
        rows: a text for each column.
        best: row and column of the cells that are the best of those they are compared with.
        detail: whether it tells more of what another table sums up.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    detail: bool = False

    def markdown(self) -> str:
        """The table with its title, in Markdown, the best in bold."""
        lines = [f"## {self.title}", "", _line(self.header), _line(["---"] * len(self.header))]
        return "\n".join([*lines, *(_line(row) for row in self.marked("**", "**")), ""])

    def marked(self, before: str, after: str) -> list[list[str]]:
        """The rows, with the best between two texts."""
        return [
            [
                f"{before}{cell}{after}" if (down, across) in self.best else cell
                for across, cell in enumerate(row)
            ]
            for down, row in enumerate(self.rows)
        ]


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of values, of which some may be infinite."""
    finite = [value for value in values if math.isfinite(value)]
    return Spread(
        mean=statistics.fmean(finite) if finite else math.inf,
        deviation=statistics.stdev(finite) if len(finite) > 1 else None,
        count=len(values),
        missed=len(values) - len(finite),
    )


def tables(rows: Sequence[Row]) -> list[Table]:
    """For each pipeline one table by prompt and one by class.

    The columns are the metrics, as in Tables 1 and 2 of the paper. Those of a video are the numbers of
    prompted frames, as in Table 4, and each metric has a table; J&F alone has one by class.
    """
    made = []
    for pipeline in dict.fromkeys(row.pipeline for row in rows):
        chosen = [row for row in rows if row.pipeline == pipeline]
        metrics = [name for name in METRICS if any(name in row.values for row in chosen)]
        if pipeline == "video":
            counts = sorted({row.frames for row in chosen})
            for number, metric in enumerate(metrics):
                columns = [_Column(_frames_title(count), metric, count) for count in counts]
                both = _both(f"{pipeline}: {TITLES[metric]}", columns, chosen)
                made.extend(both if number == 0 else both[:1])
        else:
            made.extend(_both(pipeline, [_Column(TITLES[name], name) for name in metrics], chosen))
    return made


def paper_table(rows: Sequence[Mapping[str, str | float]]) -> Table:
    """What the papers report for the same data."""
    texts = [{TITLES.get(name, name): _text(name, value) for name, value in row.items()} for row in rows]
    header = list(dict.fromkeys(name for row in texts for name in row))
    return Table(
        "For comparison, as published",
        [name.capitalize() if name.islower() else name for name in header],
        [[row.get(name, "") for name in header] for row in texts],
    )


@dataclass(frozen=True)
class _Column:
    title: str
    metric: str
    frames: int | None = None

    def value(self, row: Row) -> float | None:
        if self.frames not in (None, row.frames):
            return None
        return row.values.get(self.metric)


def _both(title: str, columns: Sequence[_Column], rows: Sequence[Row]) -> list[Table]:
    """The table by prompt, and the one by class where there is more than one class."""
    by_prompt = _grouped(rows, lambda row: (row.prompt, row.weights))
    made = [_table(title, ("Prompt", "Weights"), columns, by_prompt)]
    objects = sorted((row for row in rows if row.object), key=lambda row: row.label)
    by_class = _grouped(objects, lambda row: (row.label, row.prompt, row.weights))
    if len({label for label, _, _ in by_class}) > 1:
        table = _table(f"{title}, by class", ("Class", "Prompt", "Weights"), columns, by_class)
        made.append(replace(table, detail=True))
    return made


def _grouped(rows: Sequence[Row], group: Callable[[Row], Group]) -> dict[Group, list[Row]]:
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    return groups


def _table(
    title: str, names: Sequence[str], columns: Sequence[_Column], groups: Mapping[Group, Sequence[Row]]
) -> Table:
    """One line for each group, which ends with the name of the weights."""
    cells = [
        {group: found for group, rows in groups.items() if (found := _cell(column, rows))}
        for column in columns
    ]
    # Weights are compared under one prompt; a single network's prompts with each other.
    several = len({group[-1] for group in groups}) > 1
    best = [
        _best(found, lambda group: group[: -1 if several else -2], column.metric in LOWER_IS_BETTER)
        for column, found in zip(columns, cells, strict=True)
    ]
    lines = [
        [*group, str(_count(rows)), *(str(found.get(group, "")) for found in cells)]
        for group, rows in groups.items()
    ]
    marks = {
        (down, len(names) + 1 + across)
        for down, group in enumerate(groups)
        for across, winners in enumerate(best)
        if group in winners
    }
    return Table(title, [*names, "Objects", *(column.title for column in columns)], lines, frozenset(marks))


def _count(rows: Sequence[Row]) -> int:
    """Different objects in rows."""
    return len({(row.image, row.object) for row in rows if row.object})


def _cell(column: _Column, rows: Sequence[Row]) -> Spread | None:
    values = [value for row in rows if (value := column.value(row)) is not None]
    return spread_of(values) if values else None


def _best(found: Mapping[Group, Spread], rivalry: Callable[[Group], Group], lower: bool) -> set[Group]:
    """The groups whose mean is the best among those that they are compared with."""
    best = set()
    for group, spread in found.items():
        rivals = [other.mean for name, other in found.items() if rivalry(name) == rivalry(group)]
        if len(rivals) > 1 and spread.mean == (min if lower else max)(rivals):
            best.add(group)
    return best


def _frames_title(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _text(name: str, value: str | float) -> str:
    return f"{value:.4f}" if name in TITLES and isinstance(value, float) else str(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
