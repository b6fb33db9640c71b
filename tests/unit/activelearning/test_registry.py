from __future__ import annotations

import pytest
from monailabel.datastore.local import LocalDatastore

from lib.activelearning.registry import all_strategies
from lib.scoring.store import ScoreStore
from lib.settings import STRATEGIES
from tests.unit.activelearning.conftest import image_score


def test_every_name_that_the_setting_allows_is_there_and_random_first(scores: ScoreStore) -> None:
    assert tuple(all_strategies("random", 30, scores)) == STRATEGIES


@pytest.mark.parametrize("default", STRATEGIES)
def test_the_setting_decides_what_random_means(
    default: str, datastore: LocalDatastore, scores: ScoreStore
) -> None:
    answer = all_strategies(default, 30, scores)["random"]({}, datastore)
    assert answer is not None
    assert answer["choice"]["strategy"] == default


@pytest.mark.parametrize("name", STRATEGIES[1:])
def test_a_strategy_that_is_named_is_honoured_as_asked(
    name: str, datastore: LocalDatastore, scores: ScoreStore
) -> None:
    answer = all_strategies("hybrid", 30, scores)[name]({}, datastore)
    assert answer is not None
    assert answer["choice"]["strategy"] == name


def test_the_description_says_what_random_stands_for(scores: ScoreStore) -> None:
    assert all_strategies("random", 30, scores)["random"].info()["description"] == "Any image, by chance"
    described = all_strategies("hybrid", 30, scores)["random"].info()["description"]
    assert described.endswith("(--conf strategy hybrid)")


def test_a_case_that_one_strategy_gave_no_other_gives(datastore: LocalDatastore, scores: ScoreStore) -> None:
    for name, score in zip("abc", (0.1, 0.5, 0.9), strict=True):
        scores.put(name, image_score(score))
    strategies = all_strategies("random", 30, scores)
    answers = [
        strategies[name]({"client_id": name}, datastore)
        for name in ("uncertainty", "last", "first", "random")
    ]
    assert [answer and answer["id"] for answer in answers] == ["c", "b", "a", None]
