"""Numbers and tables as Markdown, for all benchmarks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
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
