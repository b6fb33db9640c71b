from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from lib.activelearning import diversity
from lib.activelearning.diversity import Diversity, k_centre
from tests.unit.activelearning.conftest import one


def ids(pool: list, labelled: list, seed: int = 0) -> list[str]:
    return [c.id for c in Diversity().rank(pool, labelled, np.random.default_rng(seed))]


def test_on_a_line_the_farthest_from_the_labelled_comes_first() -> None:
    # The labelled one is at 0. Farthest is 10; then, between 0 and 10, 4 (4 and 6 away); then 2 (2 away); 9.
    pool = [one("two", at=(2, 0)), one("four", at=(4, 0)), one("nine", at=(9, 0)), one("ten", at=(10, 0))]
    choices = Diversity().rank(pool, [one("l", at=(0, 0))], np.random.default_rng(0))
    assert [c.id for c in choices] == ["ten", "four", "two", "nine"]
    assert "10.00" in choices[0].why
    assert "4.00" in choices[1].why


def test_without_a_label_it_begins_with_the_most_typical() -> None:
    # The mean is (3.75, 0); b is nearest to it. Then d (7 from b), then a (3).
    pool = [one("a", at=(0, 0)), one("b", at=(3, 0)), one("c", at=(2, 0)), one("d", at=(10, 0))]
    choices = Diversity().rank(pool, [], np.random.default_rng(0))
    assert [c.id for c in choices] == ["b", "d", "a", "c"]
    assert "typical" in choices[0].why


def test_equal_distances_go_to_the_first_name() -> None:
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
        monkeypatch.setattr(diversity, "PRODUCTS", at_once)
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


def test_without_any_embedding_it_is_the_order_of_chance() -> None:
    first = {ids([one("a"), one("b"), one("c")], [], seed)[0] for seed in range(30)}
    assert first == {"a", "b", "c"}


def test_past_the_places_that_people_look_at_it_is_by_distance_and_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diversity, "MOST_PLACES", 2)
    points = np.array([[1.0], [2.0], [6.0], [10.0]])
    order = k_centre(points, np.array([[0.0]]))
    # 10, then 6 (4 from 10); 2 is 2 from 0, 1 is 1 from 0.
    assert order == [(3, 10.0), (2, 4.0), (1, 2.0), (0, 1.0)]
