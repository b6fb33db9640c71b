from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lib.evaluation.active_learning.rows import Point
from lib.evaluation.active_learning.summary import (
    area,
    curves_of,
    judge,
    labels_needed,
    points_table,
    summary_table,
)

LABELS = (2, 4, 8)


def points(**curves: list[list[float]]) -> list[Point]:
    """Dice by strategy, seed and labels, in no good order."""
    made = [
        Point("run", strategy, seed, count, dice, {}, (), (), 0.0)
        for strategy, seeds in curves.items()
        for seed, values in enumerate(seeds)
        for count, dice in zip(LABELS, values, strict=True)
    ]
    # Chance comes first, as the options have it.
    return sorted(made, key=lambda item: (item.strategy != "random", -item.labels, item.seed))


def test_the_area_is_the_mean_height_over_the_labels() -> None:
    # Between 2 and 4 the mean is 0.5, between 4 and 8 it is 0.8: (2 x 0.5 + 4 x 0.8) / 6 = 0.7.
    found = area(np.array([2.0, 4.0, 8.0]), np.array([[0.4, 0.6, 1.0], [0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(found, [0.7, 0.5])
    assert area(np.array([3.0]), np.array([[0.4]])).tolist() == [0.4]


@pytest.mark.parametrize(
    ("goal", "needed"), [(0.3, 2.0), (0.4, 2.0), (0.5, 3.0), (0.6, 4.0), (0.65, 6.0), (0.71, math.inf)]
)
def test_a_goal_is_reached_between_two_points(goal: float, needed: float) -> None:
    curve = np.array([0.4, 0.6, 0.7])
    assert labels_needed(np.array([2.0, 4.0, 8.0]), curve, goal) == pytest.approx(needed)


def test_a_goal_that_is_passed_and_lost_again_was_reached() -> None:
    assert labels_needed(np.array([2.0, 4.0, 8.0]), np.array([0.4, 0.6, 0.5]), 0.6) == 4.0


def test_curves_are_in_the_order_of_seeds_and_labels() -> None:
    found = curves_of(points(random=[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    np.testing.assert_array_equal(found["random"], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])


def test_a_strategy_is_judged_by_what_chance_does_with_the_same_seed() -> None:
    chance = [[0.4, 0.6, 0.8], [0.2, 0.4, 0.6], [0.3, 0.5, 0.7]]
    better = [[value + 0.1 for value in seed] for seed in chance]
    random, hybrid = judge(points(random=chance, hybrid=better))
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
    [random] = judge(points(random=flat))
    assert (random.area.value, random.area.low, random.area.high) == (0.5, 0.0, 1.0)
    # Of sixteen, the binomial with n = 16 and p = 1/2: 95 of 100 lie within 4 and 12.
    [random] = judge(points(random=flat * 8))
    assert (random.area.low, random.area.high) == (0.25, 0.75)


def test_what_never_gets_there_is_said_and_is_null_in_json() -> None:
    verdicts = judge(points(random=[[0.1, 0.2, 0.9]], hybrid=[[0.1, 0.2, 0.3]]))
    assert verdicts[1].needed.value == math.inf
    record = json.loads(json.dumps([verdict.as_record() for verdict in verdicts], allow_nan=False))
    assert record[1]["needed"] == {"value": None, "low": None, "high": None}
    text = summary_table(verdicts).markdown()
    assert "never (never to never)" in text


def test_tables_say_every_number() -> None:
    verdicts = judge(points(random=[[0.4, 0.6, 0.8], [0.2, 0.4, 0.6]], first=[[0.1] * 3, [0.1] * 3]))
    summary = summary_table(verdicts).markdown()
    assert "| random |" in summary
    # Mean heights of chance: (2 x 0.5 + 4 x 0.7) / 6 and (2 x 0.3 + 4 x 0.5) / 6; of first 0.1.
    assert "| 0.5333 (0.4333 to 0.6333) |" in summary
    assert "| -0.4333 (-0.5333 to -0.3333) |" in summary
    table = points_table(verdicts)
    assert table.header == ["Strategy", "2", "4", "8"]
    assert table.rows[0][1] == "0.3000 ± 0.1414"
