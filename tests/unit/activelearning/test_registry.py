from __future__ import annotations

import numpy as np

from lib.activelearning.registry import SELECTORS
from lib.settings import STRATEGIES
from tests.unit.activelearning.conftest import one


def test_the_names_are_those_that_the_setting_allows_with_random_first() -> None:
    assert tuple(SELECTORS) == STRATEGIES


def test_each_ranks_all_with_its_name_and_a_reason(rng: np.random.Generator) -> None:
    pool = [one("a", 0.5, at=(1, 0)), one("b"), one("c", 0.2, at=(0, 1), labels=("x",))]
    for name, selector in SELECTORS.items():
        choices = selector().rank(pool, [], rng)
        assert sorted(choice.id for choice in choices) == ["a", "b", "c"]
        assert [choice.rank for choice in choices] == [0, 1, 2]
        assert {choice.strategy for choice in choices} == {name}
        assert all(choice.why for choice in choices)


def test_each_ranks_a_thousand_images(rng: np.random.Generator) -> None:
    places = rng.normal(size=(1000, 32))
    pool = [one(str(n), 0.5, tuple(places[n]), ("a", "b")[: n % 3]) for n in range(1000)]
    for selector in SELECTORS.values():
        assert len(selector().rank(pool, pool[:100], rng)) == 1000
