from __future__ import annotations

from collections import Counter

import numpy as np

from lib.activelearning.diversity import Diversity
from lib.activelearning.hybrid import Hybrid
from tests.unit.activelearning.conftest import one

DRAWS = 4000


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


def test_equal_scores_are_equally_likely() -> None:
    seen = first([one("a", 0.5), one("b", 0.5), one("c", 0.1)], labelled(4))
    # Ranks 1.5, 1.5 and 3: shares of 2, 2 and 1 fifths.
    for name, share in (("a", 0.4), ("b", 0.4), ("c", 0.2)):
        assert abs(seen[name] - share * DRAWS) < 5 * np.sqrt(share * (1 - share) * DRAWS)


def test_with_very_many_labels_it_is_the_greedy_order() -> None:
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


def test_an_image_with_two_labels_counts_for_both() -> None:
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
