from __future__ import annotations

from pathlib import Path

import pytest

from lib.errors import EvaluationError
from lib.evaluation.csv_lines import cells_of

PATH = Path("curve.csv")


def test_a_damaged_line_spoils_no_other() -> None:
    lines = ["name,value", 'a,"1', "b,2", '"c, d",3']
    assert cells_of(lines, ("name", "value"), PATH)[1:] == [["b", "2"], ["c, d", "3"]]
    assert cells_of([], ("name", "value"), PATH) == []


def test_a_file_of_another_program_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"curve\.csv has other columns than this program writes"):
        cells_of(["name"], ("name", "value"), PATH)
