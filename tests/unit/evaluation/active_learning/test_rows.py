from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lib.errors import EvaluationError
from lib.evaluation.active_learning.rows import Point, PointsFile


def point(strategy: str = "random", seed: int = 0, labels: int = 2, dice: float = 1 / 3) -> Point:
    labelled = tuple(f'case, "{n}"\u00e4' for n in range(labels))
    return Point("run", strategy, seed, labels, dice, {"box": 0.1 + 0.2}, labelled, ("next one",), 1.25)


def test_points_outlive_the_process_bit_by_bit(tmp_path: Path) -> None:
    points = [point(), point(seed=1), point("hybrid", labels=4, dice=0.1 + 0.7)]
    file = PointsFile(tmp_path / "out" / "curve.csv")
    for item in points:
        file.add(item)
    again = PointsFile(tmp_path / "out" / "curve.csv")
    assert [again.get(*item.key) for item in points] == points
    assert again.get("another run", "random", 0, 2) is None


def test_a_point_that_is_computed_again_takes_its_own_place(tmp_path: Path) -> None:
    file = PointsFile(tmp_path / "curve.csv")
    file.add(point(dice=0.5))
    file.add(point(dice=0.6))
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 2
    found = PointsFile(tmp_path / "curve.csv").get("run", "random", 0, 2)
    assert found is not None
    assert found.dice == 0.6


def test_a_damaged_line_spoils_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "curve.csv"
    file = PointsFile(path)
    file.add(point())
    file.add(point(seed=1))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-30], lines[2]]))
    with caplog.at_level(logging.WARNING):
        again = PointsFile(path)
    assert again.get("run", "random", 0, 2) is None
    assert again.get("run", "random", 1, 2) == point(seed=1)
    assert "cannot be read" in caplog.text


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("a,b\n1,2\n")
    with pytest.raises(EvaluationError, match="other columns"):
        PointsFile(tmp_path / "curve.csv")
    assert (tmp_path / "curve.csv").read_text() == "a,b\n1,2\n"
