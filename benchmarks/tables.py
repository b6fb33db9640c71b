"""Numbers and tables as Markdown, for all benchmarks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NOTHING = "-"


@dataclass(frozen=True)
class Summary:
    """Repeated measurements.

    Attributes:
        least: Minimum: the undisturbed machine.
        middle: Median: the typical case.
        count: Number of measurements.
    """

    least: float
    middle: float
    count: int


def summarise(values: Iterable[float]) -> Summary:
    """Minimum and median of the finite values; NaN without any."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Summary(math.nan, math.nan, 0)
    return Summary(min(finite), statistics.median(finite), len(finite))


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed decimals; a dash for None and NaN."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub table: the first column aligned left, all others right.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    lines = [_line(header), _line([":--", *["--:"] * (len(header) - 1)])]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header has {len(header)}: {list(row)}")
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
