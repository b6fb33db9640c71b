from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

import numpy as np

from lib.activelearning.candidate import Candidate, Placed, Selector, shuffled, with_unknown
from tests.unit.activelearning.conftest import one

KNOWN = [(one("a", 0.9), "first"), (one("b", 0.5), "second"), (one("c", 0.1), "third")]


class AsGiven(Selector):
    """Leaves the order as ``rank`` hands it over."""

    name = "as given"

    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        return [(candidate, f"because of {candidate.id}") for candidate in candidates]


def test_candidates_are_told_apart_by_identity_so_that_embeddings_need_no_comparison() -> None:
    embedding = np.ones(3, dtype=np.float32)
    first, second = Candidate("a", 0.5, embedding), Candidate("a", 0.5, embedding)
    assert first != second
    assert len({first, second}) == 2


def test_choices_are_ranked_by_id_and_carry_what_the_candidate_says(rng: np.random.Generator) -> None:
    pool = [one("b"), Candidate("a2", 0.25, None, ("liver",), slice_index=12), one("a10")]
    choices = AsGiven().rank(pool, [], rng)
    assert [(choice.id, choice.rank) for choice in choices] == [("a10", 0), ("a2", 1), ("b", 2)]
    told = choices[1]
    assert (told.score, told.strategy, told.why, told.slice_index) == (0.25, "as given", "because of a2", 12)
    assert (choices[2].score, choices[2].slice_index) == (None, None)


def test_every_order_of_three_is_equally_likely(rng: np.random.Generator) -> None:
    pool = [one(name) for name in "xyz"]
    seen = Counter("".join(item.id for item in shuffled(pool, rng)) for _ in range(6000))
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
    unknown = [one("x"), one("y")]
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
