from __future__ import annotations

import numpy as np
import pytest

from lib.activelearning.selectors import SELECTORS
from tests.unit.activelearning.conftest import one


def test_the_names_are_those_that_a_person_may_choose() -> None:
    assert list(SELECTORS) == ["random", "first", "last", "diversity", "uncertainty", "hybrid"]


@pytest.mark.parametrize("name", SELECTORS)
def test_each_says_its_name_and_gives_a_reason(name: str, rng: np.random.Generator) -> None:
    pool = [one("a", 0.5, at=(1, 0)), one("b"), one("c", 0.2, at=(0, 1), labels=("x",))]
    choices = SELECTORS[name]().rank(pool, [], rng)
    assert sorted(choice.id for choice in choices) == ["a", "b", "c"]
    assert {choice.strategy for choice in choices} == {name}
    assert all(choice.why for choice in choices)


@pytest.mark.parametrize("name", SELECTORS)
def test_a_thousand_images_take_no_time_to_speak_of(name: str, rng: np.random.Generator) -> None:
    places = rng.normal(size=(1000, 32))
    pool = [one(str(n), 0.5, tuple(places[n]), ("a", "b")[: n % 3]) for n in range(1000)]
    assert len(SELECTORS[name]().rank(pool, pool[:100], rng)) == 1000
