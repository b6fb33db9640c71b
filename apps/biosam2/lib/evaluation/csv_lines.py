"""Lines of a CSV file of ours that a run goes on from."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from lib.errors import EvaluationError


def cells_of(lines: Iterable[str], header: Sequence[str], path: Path) -> list[list[str]]:
    """Cells of the lines behind the header, line by line, so that a damaged one spoils no other.

    Args:
        lines: of the file, without their ends.
        header: that the file must have.
        path: of the file, for the error.

    Raises:
        EvaluationError: it has another header.
    """
    cells = [next(csv.reader([line]), []) for line in lines]
    if cells and cells[0] != list(header):
        raise EvaluationError(
            f"{path} has other columns than this program writes: choose another --output, or move "
            "the file away"
        )
    return cells[1:]
