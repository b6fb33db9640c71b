from __future__ import annotations

from collections import Counter

import numpy as np

from lib.activelearning.baselines import First, Last, Random
from tests.unit.activelearning.conftest import one

POOL = [one("b", 0.9), one("c"), one("a", 0.1)]


def test_first_and_last_are_by_name_and_draw_nothing() -> None:
    state = np.random.default_rng(0)
    assert [c.id for c in First().rank(POOL, [], state)] == ["a", "b", "c"]
    assert [c.id for c in Last().rank(POOL, [], state)] == ["c", "b", "a"]
    assert state.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_random_is_the_same_for_the_same_state_whatever_order_the_pool_comes_in() -> None:
    first = [c.id for c in Random().rank(POOL, [], np.random.default_rng(3))]
    assert first == [c.id for c in Random().rank(POOL[::-1], [], np.random.default_rng(3))]
    assert sorted(first) == ["a", "b", "c"]


def test_random_heeds_no_score(rng: np.random.Generator) -> None:
    first = Counter(Random().rank(POOL, [], rng)[0].id for _ in range(3000))
    assert all(abs(count - 1000) < 130 for count in first.values())


def test_an_empty_pool_is_an_empty_order(rng: np.random.Generator) -> None:
    for selector in (Random(), First(), Last()):
        assert selector.rank([], POOL, rng) == []
