from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
import pytest

from lib.activelearning import selectors
from lib.activelearning.selectors import (
    SELECTORS,
    Candidate,
    Diversity,
    First,
    Hybrid,
    Last,
    Placed,
    Random,
    Selector,
    Uncertainty,
    k_centre,
    shuffled,
    with_unknown,
)
from lib.settings import STRATEGIES
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


def test_the_unknown_are_inserted_by_their_share(rng: np.random.Generator) -> None:
    for _ in range(50):
        order = with_unknown(KNOWN, [one("x"), one("y")], "unknown", rng)
        names = [candidate.id for candidate, _ in order]
        assert sorted(names) == ["a", "b", "c", "x", "y"]
        assert [name for name in names if name in "abc"] == ["a", "b", "c"]
        assert {why for candidate, why in order if candidate.id in "xy"} == {"unknown"}

    # The unknown stand first as often as their share.
    unknown = [one("x"), one("y")]
    first = Counter(with_unknown(KNOWN, unknown, "", rng)[0][0].id for _ in range(5000))
    # x and y are 2 of 5: each first once in 5, the best of the known in the other 3 of 5.
    assert abs(first["x"] - 1000) < 142
    assert abs(first["y"] - 1000) < 142
    assert abs(first["a"] - 3000) < 174
    assert set(first) == {"x", "y", "a"}

    # Without the known or without the unknown it is the others.
    assert with_unknown(KNOWN, [], "", rng) == KNOWN
    assert len(with_unknown([], [one("x"), one("y")], "", rng)) == 2
    assert with_unknown([], [], "", rng) == []


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


def ids(pool: list, labelled: list, seed: int = 0) -> list[str]:
    return [c.id for c in Diversity().rank(pool, labelled, np.random.default_rng(seed))]


def test_diversity_is_by_distance_then_by_name() -> None:
    # The labelled one is at 0. Farthest is 10; then, between 0 and 10, 4 (4 and 6 away); then 2 (2 away); 9.
    pool = [one("two", at=(2, 0)), one("four", at=(4, 0)), one("nine", at=(9, 0)), one("ten", at=(10, 0))]
    choices = Diversity().rank(pool, [one("l", at=(0, 0))], np.random.default_rng(0))
    assert [c.id for c in choices] == ["ten", "four", "two", "nine"]
    assert "10.00" in choices[0].why
    assert "4.00" in choices[1].why

    # Without a label it begins with the most typical.
    # The mean is (3.75, 0); b is nearest to it. Then d (7 from b), then a (3).
    pool = [one("a", at=(0, 0)), one("b", at=(3, 0)), one("c", at=(2, 0)), one("d", at=(10, 0))]
    choices = Diversity().rank(pool, [], np.random.default_rng(0))
    assert [c.id for c in choices] == ["b", "d", "a", "c"]
    assert "typical" in choices[0].why

    # Equal distances go to the first name.
    pool = [one("c", at=(1, 0)), one("b", at=(0, 1)), one("a", at=(-1, 0))]
    assert ids(pool, [one("l", at=(0, 0))])[0] == "a"


def test_every_place_is_the_one_that_brute_force_finds() -> None:
    for seed in range(20):
        _check_against_brute_force(seed)


def _check_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, centres = rng.normal(size=(12, 5)), rng.normal(size=(seed % 3, 5))
    chosen: list[int] = []
    for place, distance in k_centre(points, centres):
        there = [*centres, *(points[i] for i in chosen)]
        if there:
            apart = {
                i: min(float(np.sqrt(((points[i] - c) ** 2).sum())) for c in there)
                for i in range(len(points))
                if i not in chosen
            }
            assert place == max(apart, key=lambda i: apart[i])
            assert distance == pytest.approx(apart[place])
        else:
            assert distance is None
        chosen.append(place)
    assert sorted(chosen) == list(range(12))


def test_of_many_labelled_the_nearest_counts_however_many_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(7)
    points, centres = rng.normal(size=(30, 6)), rng.normal(size=(17, 6))
    apart = [min(float(np.sqrt(((point - one) ** 2).sum())) for one in centres) for point in points]
    for at_once in (1, 40, 1 << 22):
        monkeypatch.setattr(selectors, "PRODUCTS", at_once)
        assert k_centre(points, centres)[0] == (int(np.argmax(apart)), pytest.approx(max(apart)))


def test_an_image_equal_to_a_labelled_one_is_at_no_distance_from_it() -> None:
    points = np.random.default_rng(3).normal(size=(5, 64))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert k_centre(points, points.copy()) == [(place, 0.0) for place in range(5)]


def test_it_is_at_most_twice_as_far_as_the_best_possible_choice() -> None:
    """The bound of Gonzalez 1985, against all choices of three of eleven."""
    for seed in range(10):
        _check_bound(np.random.default_rng(100 + seed).normal(size=(11, 3)))


def _check_bound(points: np.ndarray) -> None:

    def radius(chosen: tuple[int, ...]) -> float:
        return max(min(float(np.linalg.norm(p - points[i])) for i in chosen) for p in points)

    greedy = tuple(place for place, _ in k_centre(points, np.zeros((0, 3)))[:3])
    best = min(radius(chosen) for chosen in combinations(range(11), 3))
    assert best <= radius(greedy) <= 2 * best


def test_an_image_without_embedding_is_first_as_often_as_any_other() -> None:
    pool = [one("a", at=(5, 0)), one("b", at=(3, 0)), one("x"), one("y")]
    first = [ids(pool, [one("l", at=(0, 0))], seed)[0] for seed in range(2000)]
    # Two of four are unknown; 5 standard deviations are 112.
    assert abs(sum(name in "xy" for name in first) - 1000) < 112
    assert set(first) == {"a", "x", "y"}

    # Without any embedding it is the order of chance.
    first = {ids([one("a"), one("b"), one("c")], [], seed)[0] for seed in range(30)}
    assert first == {"a", "b", "c"}


def test_past_the_places_that_people_look_at_it_is_by_distance_and_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selectors, "MOST_PLACES", 2)
    points = np.array([[1.0], [2.0], [6.0], [10.0]])
    order = k_centre(points, np.array([[0.0]]))
    # 10, then 6 (4 from 10); 2 is 2 from 0, 1 is 1 from 0.
    assert order == [(3, 10.0), (2, 4.0), (1, 2.0), (0, 1.0)]


def test_the_least_sure_comes_first_and_the_unscored_by_chance(rng: np.random.Generator) -> None:
    pool = [one("b", 0.5), one("low", 0.1), one("a", 0.5), one("high", 0.9), one("zero", 0.0)]
    choices = Uncertainty().rank(pool, [], rng)
    assert [c.id for c in choices] == ["high", "a", "b", "low", "zero"]
    assert [c.rank for c in choices] == [0, 1, 2, 3, 4]
    assert choices[0].why == "uncertainty 0.90, rank 1 of 5"

    # Those without a score are never starved and starve nobody.
    pool = [one("sure", 0.05), one("unsure", 0.95), one("x"), one("y")]
    first = [Uncertainty().rank(pool, [], np.random.default_rng(seed))[0].id for seed in range(2000)]
    assert abs(first.count("x") - 500) < 97  # 5 standard deviations
    assert abs(first.count("y") - 500) < 97
    assert first.count("sure") == 0

    # Without any score it is the order of chance.
    pool = [one("a"), one("b")]
    first = {Uncertainty().rank(pool, [], np.random.default_rng(seed))[0].id for seed in range(20)}
    assert first == {"a", "b"}


DRAWS = 2000


def labelled(count: int, *labels: str) -> list:
    return [one(f"l{number}", at=(float(number), 0), labels=labels) for number in range(count)]


def first(pool: list, done: list, draws: int = DRAWS, **options: float) -> Counter[str]:
    rng = np.random.default_rng(11)
    return Counter(Hybrid(**options).rank(pool, done, rng)[0].id for _ in range(draws))


def test_it_begins_as_diversity_does() -> None:
    pool = [one("near", 0.99, at=(2.5, 0)), one("far", 0.01, at=(50, 0)), one("mid", 0.5, at=(20, 0))]
    for count in range(4):
        done = labelled(count)
        begun = [(c.id, c.why) for c in Hybrid().rank(pool, done, np.random.default_rng(0))]
        assert begun == [(c.id, c.why) for c in Diversity().rank(pool, done, np.random.default_rng(0))]
        assert all(c.strategy == "hybrid" for c in Hybrid().rank(pool, done, np.random.default_rng(0)))


def test_the_noise_fades_with_the_labels() -> None:
    for done, power in [(4, 1.0), (12, 2.0), (20, 3.0)]:
        # No label was found, so there is one pile: P(first) = rank^-power / sum (Plackett-Luce).
        weights = {"a": 1.0, "b": 2**-power, "c": 3**-power}
        seen = first([one("c", 0.24), one("b", 0.25), one("a", 0.26)], labelled(done))
        for name, weight in weights.items():
            share = weight / sum(weights.values())
            assert abs(seen[name] - share * DRAWS) < 5 * np.sqrt(share * (1 - share) * DRAWS)

    # Equal scores are equally likely.
    seen = first([one("a", 0.5), one("b", 0.5), one("c", 0.1)], labelled(4))
    # Ranks 1.5, 1.5 and 3: shares of 2, 2 and 1 fifths.
    for name, share in (("a", 0.4), ("b", 0.4), ("c", 0.2)):
        assert abs(seen[name] - share * DRAWS) < 5 * np.sqrt(share * (1 - share) * DRAWS)

    # With very many labels it is the greedy order.
    pool = [one("a", 0.5), one("b", 0.55), one("c", 0.6)]
    order = [c.id for c in Hybrid().rank(pool, labelled(4000), np.random.default_rng(0))]
    assert order == ["c", "b", "a"]


def test_every_second_choice_is_of_the_rarest_label() -> None:
    pool = [one("liver1", 0.9, labels=("liver",)), one("liver2", 0.9, labels=("liver",))]
    pool += [one("cyst", 0.001, labels=("cyst",)), one("nothing", 0.9)]
    done = labelled(5, "liver")
    choices = Hybrid().rank(pool, done, np.random.default_rng(0))
    assert choices[0].id == "cyst"
    assert "for label cyst, found in 0 images so far" in choices[0].why
    # With an even number of labels it is the turn of all; with very many the noise is gone.
    assert first(pool, labelled(4000, "liver"), 100)["cyst"] == 0

    # An image with two labels counts for both.
    pool = [one("both", 0.5, labels=("a", "b")), one("c", 0.5, labels=("c",)), one("b", 0.5, labels=("b",))]
    done = [one("l", labels=("a",)), one("m", labels=("a", "b")), one("n", labels=("c", "b")), *labelled(2)]
    # a: 2, b: 2, c: 1, so c is next. Then it is the turn of all, and after it of b or a.
    assert {c.id for c in Hybrid().rank(pool, done, np.random.default_rng(0))[:1]} == {"c"}


def test_all_candidates_are_there_once(rng: np.random.Generator) -> None:
    pool = [one(str(n), n / 40 if n % 3 else None, labels=("a", "b", "c")[: n % 4]) for n in range(40)]
    choices = Hybrid().rank(pool, labelled(7, "a"), rng)
    assert sorted(c.id for c in choices) == sorted(c.id for c in pool)
    assert [c.rank for c in choices] == list(range(40))


def test_without_scores_it_stays_with_diversity_and_without_embeddings_with_chance() -> None:
    pool = [one("near", at=(2.5, 0)), one("far", at=(90, 0))]
    assert Hybrid().rank(pool, labelled(9), np.random.default_rng(0))[0].id == "far"
    seen = first([one("a"), one("b")], [one("l")] * 9, 200)
    assert set(seen) == {"a", "b"}


def test_the_unscored_are_first_as_often_as_their_share() -> None:
    seen = first([one("a", 0.9), one("b", 0.9), one("x"), one("y")], labelled(8))
    assert abs(seen["x"] + seen["y"] - DRAWS / 2) < 5 * np.sqrt(DRAWS / 4)


def test_the_same_state_gives_the_same_order_whatever_order_the_pool_comes_in() -> None:
    pool = [one(str(n), n / 20, labels=("a", "b")[n % 2 :]) for n in range(20)]
    one_way = Hybrid().rank(pool, labelled(6, "a"), np.random.default_rng(5))
    assert one_way == Hybrid().rank(pool[::-1], labelled(6, "a"), np.random.default_rng(5))


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

    # Each ranks a thousand images.
    places = rng.normal(size=(1000, 32))
    pool = [one(str(n), 0.5, tuple(places[n]), ("a", "b")[: n % 3]) for n in range(1000)]
    for selector in SELECTORS.values():
        assert len(selector().rank(pool, pool[:100], rng)) == 1000
