from __future__ import annotations

import numpy as np

from lib.activelearning.uncertainty import Uncertainty
from tests.unit.activelearning.conftest import one


def test_the_least_sure_comes_first_and_ties_go_by_name(rng: np.random.Generator) -> None:
    pool = [one("b", 0.5), one("low", 0.1), one("a", 0.5), one("high", 0.9), one("zero", 0.0)]
    choices = Uncertainty().rank(pool, [], rng)
    assert [c.id for c in choices] == ["high", "a", "b", "low", "zero"]
    assert [c.rank for c in choices] == [0, 1, 2, 3, 4]
    assert choices[0].why == "uncertainty 0.90, rank 1 of 5"


def test_those_without_a_score_are_never_starved_and_starve_nobody() -> None:
    pool = [one("sure", 0.05), one("unsure", 0.95), one("x"), one("y")]
    first = [Uncertainty().rank(pool, [], np.random.default_rng(seed))[0].id for seed in range(2000)]
    assert abs(first.count("x") - 500) < 97  # 5 standard deviations
    assert abs(first.count("y") - 500) < 97
    assert first.count("sure") == 0


def test_without_any_score_it_is_the_order_of_chance() -> None:
    pool = [one("a"), one("b")]
    first = {Uncertainty().rank(pool, [], np.random.default_rng(seed))[0].id for seed in range(20)}
    assert first == {"a", "b"}
