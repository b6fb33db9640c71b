"""Numbers to Markdown: the smallest parts that both benchmarks share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NOTHING = "-"


@dataclass(frozen=True)
class Summary:
    """The least and the middle of repeated measurements.

    Attributes:
        least: minimum, what the machine can do undisturbed.
        middle: median, what a person meets.
        count: number of measurements.
    """

    least: float
    middle: float
    count: int


def summarise(values: Iterable[float]) -> Summary:
    """Minimum and median of the finite values; NaN for both when there is none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Summary(math.nan, math.nan, 0)
    return Summary(min(finite), statistics.median(finite), len(finite))


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed decimals, and a dash where there is none."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub table: the first column to the left, all others to the right.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    lines = [_line(header), _line([":--", *["--:"] * (len(header) - 1)])]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header has {len(header)}: {list(row)}")
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
