from __future__ import annotations

import io
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.errors import EvaluationError
from lib.evaluation.learning_curves import (
    CurvePoint,
    area,
    compare,
    curves_of,
    labels_needed,
    points_file,
    points_table,
    summary_table,
    write_curve,
)
from lib.evaluation.options import SimulationOptions

LABELS = (2, 4, 8)


def points(**curves: list[list[float]]) -> list[CurvePoint]:
    """Dice by strategy, seed and labels, in no good order."""
    made = [
        CurvePoint("run", strategy, seed, count, dice, {}, (), (), 0.0)
        for strategy, seeds in curves.items()
        for seed, values in enumerate(seeds)
        for count, dice in zip(LABELS, values, strict=True)
    ]
    # Chance comes first, as the options have it.
    return sorted(made, key=lambda item: (item.strategy != "random", -item.labels, item.seed))


def test_areas_and_labels_needed() -> None:
    # Between 2 and 4 the mean is 0.5, between 4 and 8 it is 0.8: (2 x 0.5 + 4 x 0.8) / 6 = 0.7.
    found = area(np.array([2.0, 4.0, 8.0]), np.array([[0.4, 0.6, 1.0], [0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(found, [0.7, 0.5])
    assert area(np.array([3.0]), np.array([[0.4]])).tolist() == [0.4]

    # A goal is reached between two points.
    curve = np.array([0.4, 0.6, 0.7])
    goals = {0.3: 2.0, 0.4: 2.0, 0.5: 3.0, 0.6: 4.0, 0.65: 6.0, 0.71: math.inf}
    for goal, needed in goals.items():
        assert labels_needed(np.array([2.0, 4.0, 8.0]), curve, goal) == pytest.approx(needed)

    # A goal that is passed and lost again was reached.
    assert labels_needed(np.array([2.0, 4.0, 8.0]), np.array([0.4, 0.6, 0.5]), 0.6) == 4.0


def test_curves_are_in_the_order_of_seeds_and_labels() -> None:
    found = curves_of(points(random=[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    np.testing.assert_array_equal(found["random"], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])


def test_a_strategy_is_judged_by_what_chance_does_with_the_same_seed() -> None:
    chance = [[0.4, 0.6, 0.8], [0.2, 0.4, 0.6], [0.3, 0.5, 0.7]]
    better = [[value + 0.1 for value in seed] for seed in chance]
    random, hybrid = compare(points(random=chance, hybrid=better))
    assert (random.strategy, random.gain) == ("random", None)
    np.testing.assert_allclose(random.mean, [0.3, 0.5, 0.7])
    np.testing.assert_allclose(random.deviation, [0.1, 0.1, 0.1])
    # Mean heights: seed by seed 0.1 above chance, though the seeds lie 0.2 apart.
    assert hybrid.gain is not None
    assert (hybrid.gain.value, hybrid.gain.low, hybrid.gain.high) == pytest.approx((0.1, 0.1, 0.1))
    # Chance ends at 0.7 with 8 labels; the mean of hybrid is 0.6 at 4 and 0.8 at 8, so 6 of 8 do.
    assert hybrid.needed.value == pytest.approx(0.75)
    assert random.needed.value == pytest.approx(1.0)


def test_the_interval_is_as_wide_as_the_seeds_differ() -> None:
    # Areas of a flat curve are its height. Of 0 and 1 drawn twice with replacement the mean is 0 and 1 in a
    # quarter of all draws each.
    flat = [[0.0] * 3, [1.0] * 3]
    [random] = compare(points(random=flat))
    assert (random.area.value, random.area.low, random.area.high) == (0.5, 0.0, 1.0)
    # Of sixteen, the binomial with n = 16 and p = 1/2: 95 of 100 lie within 4 and 12.
    [random] = compare(points(random=flat * 8))
    assert (random.area.low, random.area.high) == (0.25, 0.75)


def test_what_never_gets_there_is_said_and_is_null_in_json() -> None:
    verdicts = compare(points(random=[[0.1, 0.2, 0.9]], hybrid=[[0.1, 0.2, 0.3]]))
    assert verdicts[1].needed.value == math.inf
    record = json.loads(json.dumps([verdict.as_record() for verdict in verdicts], allow_nan=False))
    assert record[1]["needed"] == {"value": None, "low": None, "high": None}
    text = summary_table(verdicts).markdown()
    assert "never (never to never)" in text


def test_tables_say_every_number() -> None:
    verdicts = compare(points(random=[[0.4, 0.6, 0.8], [0.2, 0.4, 0.6]], first=[[0.1] * 3, [0.1] * 3]))
    summary = summary_table(verdicts).markdown()
    assert "| random |" in summary
    # Mean heights of chance: (2 x 0.5 + 4 x 0.7) / 6 and (2 x 0.3 + 4 x 0.5) / 6; of first 0.1.
    assert "| 0.5333 (0.4333 to 0.6333) |" in summary
    assert "| -0.4333 (-0.5333 to -0.3333) |" in summary
    table = points_table(verdicts)
    assert table.header == ["Strategy", "2", "4", "8"]
    assert table.rows[0][1] == "0.3000 ± 0.1414"


def point(strategy: str = "random", seed: int = 0, labels: int = 2, dice: float = 1 / 3) -> CurvePoint:
    labelled = tuple(f'case, "{n}"\u00e4' for n in range(labels))
    return CurvePoint("run", strategy, seed, labels, dice, {"box": 0.1 + 0.2}, labelled, ("next one",), 1.25)


def test_points_outlive_the_process_bit_by_bit(tmp_path: Path) -> None:
    points = [point(), point(seed=1), point("hybrid", labels=4, dice=0.1 + 0.7)]
    file = points_file(tmp_path / "out" / "curve.csv")
    for item in points:
        file.append([item])
    again = points_file(tmp_path / "out" / "curve.csv")
    assert [again.get(item.key) for item in points] == points
    assert again.get(("another run", "random", 0, 2)) is None


def test_a_point_that_is_computed_again_takes_its_own_place(tmp_path: Path) -> None:
    file = points_file(tmp_path / "curve.csv")
    file.append([point(dice=0.5)])
    file.append([point(dice=0.6)])
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 2
    found = points_file(tmp_path / "curve.csv").get(("run", "random", 0, 2))
    assert found is not None
    assert found.dice == 0.6


def test_a_damaged_line_spoils_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "curve.csv"
    file = points_file(path)
    file.append([point()])
    file.append([point(seed=1)])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-30], lines[2], ""]))
    with caplog.at_level(logging.WARNING):
        again = points_file(path)
    assert again.get(("run", "random", 0, 2)) is None
    assert again.get(("run", "random", 1, 2)) == point(seed=1)
    assert "cannot be read" in caplog.text


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("a,b\n1,2\n")
    with pytest.raises(EvaluationError, match="other columns"):
        points_file(tmp_path / "curve.csv")
    assert (tmp_path / "curve.csv").read_text() == "a,b\n1,2\n"


def test_everything_is_written_and_what_never_happens_is_null(tmp_path: Path) -> None:
    points = [
        CurvePoint("run", strategy, 0, labels, dice, {"box": dice}, ("a",), (), 0.5)
        for strategy, dices in {"random": (0.5, 0.9), "last": (0.4, 0.6)}.items()
        for labels, dice in zip((2, 4), dices, strict=True)
    ]
    cells = tmp_path / "cells $x"
    cells.mkdir()
    options = SimulationOptions(data=cells, output=tmp_path / "out", unit="slice")
    text = write_curve(points, options, {"pool": 7})
    record = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert record["options"]["data"].endswith("cells $x")
    assert record["facts"] == {"pool": 7}
    assert [point["dice"] for point in record["points"]] == [0.5, 0.9, 0.4, 0.6]
    assert record["strategies"][1]["needed"]["value"] is None
    assert record["strategies"][0]["needed"]["value"] == 1.0
    assert "| last | 0.4000 ± 0.0000 | 0.6000 ± 0.0000 |" in text
    page = (tmp_path / "out" / "curve.md").read_text()
    assert page.startswith("# Active learning: cells $x\n")
    assert text in page
    figure = np.asarray(Image.open(io.BytesIO((tmp_path / "out" / "curve.png").read_bytes())))
    # Two lines of different colours on white.
    assert len(np.unique(figure.reshape(-1, figure.shape[-1]), axis=0)) > 10
