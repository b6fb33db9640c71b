from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np

from lib.activelearning.candidate import Candidate
from lib.activelearning.ordering import by_id, choices, shuffled, with_unknown
from tests.unit.activelearning.conftest import one

KNOWN = [(one("a", 0.9), "first"), (one("b", 0.5), "second"), (one("c", 0.1), "third")]


def test_by_id_is_the_order_of_names_whatever_order_they_came_in() -> None:
    assert [c.id for c in by_id([one("b"), one("a10"), one("a2")])] == ["a10", "a2", "b"]


def test_every_order_of_three_is_as_likely_as_any_other(rng: np.random.Generator) -> None:
    seen = Counter("".join(shuffled("xyz", rng)) for _ in range(6000))
    assert set(seen) == {"".join(order) for order in permutations("xyz")}
    # 1000 expected of each; 5 standard deviations of a binomial are 144.
    assert all(abs(count - 1000) < 144 for count in seen.values())


def test_the_known_keep_their_order_and_nobody_is_lost(rng: np.random.Generator) -> None:
    for _ in range(50):
        order = with_unknown(KNOWN, [one("x"), one("y")], "unknown", rng)
        names = [candidate.id for candidate, _ in order]
        assert sorted(names) == ["a", "b", "c", "x", "y"]
        assert [name for name in names if name in "abc"] == ["a", "b", "c"]
        assert {why for candidate, why in order if candidate.id in "xy"} == {"unknown"}


def test_the_unknown_stand_first_as_often_as_their_share(rng: np.random.Generator) -> None:
    unknown: list[Candidate] = [one("x"), one("y")]
    first = Counter(with_unknown(KNOWN, unknown, "", rng)[0][0].id for _ in range(5000))
    # x and y are 2 of 5: each first once in 5, the best of the known in the other 3 of 5.
    assert abs(first["x"] - 1000) < 142
    assert abs(first["y"] - 1000) < 142
    assert abs(first["a"] - 3000) < 174
    assert set(first) == {"x", "y", "a"}


def test_without_the_known_or_without_the_unknown_it_is_the_others(rng: np.random.Generator) -> None:
    assert with_unknown(KNOWN, [], "", rng) == KNOWN
    assert len(with_unknown([], [one("x"), one("y")], "", rng)) == 2
    assert with_unknown([], [], "", rng) == []


def test_choices_are_ranked_from_zero_and_carry_what_the_candidate_says() -> None:
    candidate = Candidate("a", 0.25, None, ("liver",), slice_index=12)
    first, second = choices("hybrid", [(candidate, "because"), (one("b"), "as well")])
    assert (first.id, first.rank, first.score, first.strategy, first.why, first.slice_index) == (
        "a", 0, 0.25, "hybrid", "because", 12,
    )  # fmt: skip
    assert (second.id, second.rank, second.score, second.slice_index) == ("b", 1, None, None)
