from __future__ import annotations

import logging

import pytest

from lib.errors import DeviceError, EvaluationError, ImageError
from lib.scoring import base
from lib.scoring.annotation_stats import AnnotationStats
from lib.scoring.base import ScoringProgress
from lib.scoring.registry import all_methods
from tests.unit.scoring.conftest import SETTINGS


@pytest.fixture(params=[True, False], ids=["worker", "server"])
def own(request, monkeypatch) -> bool:
    """Whether the scoring runs in a process of its own."""
    monkeypatch.setattr(base, "is_worker_process", lambda: request.param)
    return request.param


def test_only_a_worker_process_gives_way_and_keeps_few_embeddings(engines, datastore, monkeypatch, own):
    calls, threads, seen = [], [], []
    monkeypatch.setattr(base, "give_way", lambda count: calls.append(count) or "urgent")
    monkeypatch.setattr(datastore, "write_by", threads.append, raising=False)
    scoring = AnnotationStats(SETTINGS.model_copy(update={"embedding_cache_mb": 1024}), engines)
    monkeypatch.setattr(scoring, "score", lambda options, datastore, given: seen.append(given))
    scoring({}, datastore)
    (given,) = seen
    assert (given is engines) != own
    assert given.registry.folder == engines.registry.folder
    assert given.get().name == "biosam2_mini"
    # One thread does what other processes wait for.
    assert (calls, threads) == (([0], ["urgent"]) if own else ([], []))
    if own:
        assert given._embeddings._entries.maxsize == 128 << 20


def test_options_have_defaults_and_what_a_client_leaves_empty_is_one(engines):
    methods = all_methods(SETTINGS, engines)
    uncertainty, nsd = methods["biosam2_uncertainty"], methods["nsd"]
    for request in ({}, {"slices": None, "device": ""}):
        options = uncertainty.options(request)
        assert options.limit_s == float("inf")
        assert (options.plan.slices, options.plan.jitters, options.plan.seconds) == (6, 4, 60.0)
    assert nsd.options({"max_minutes": 2}).limit_s == 120
    assert nsd.options({"tolerance_mm": "3.5"}).tolerance_mm == 3.5
    assert "tolerance_mm" not in methods["dice"].info()["config"]


def test_wrong_options_are_named(engines, datastore):
    scoring = all_methods(SETTINGS, engines)["biosam2_uncertainty"]
    for options, error, word in (
        ({"slices": 0}, EvaluationError, "slices"),
        ({"slices": "many"}, EvaluationError, "slices"),
        ({"jitters": 17}, EvaluationError, "jitters"),
        ({"images": "some"}, EvaluationError, "images"),
        ({"max_minutes": -1}, EvaluationError, "max_minutes"),
        ({"speed": 3}, EvaluationError, "Unknown option 'speed' \\(available: device"),
        ({"device": "cuda:9"}, DeviceError, "cuda:9"),
    ):
        with pytest.raises(error, match=word):
            scoring(options, datastore)


def test_what_is_left_when_enough_was_scored():
    progress = ScoringProgress("x", float("inf"))
    visited = []
    for image in progress.over(["a", "b", "c", "d"], most=2):
        visited.append(image)
        if image == "a":
            progress.unchanged += 1
        else:
            progress.scored(image, "0.5", 0)
    assert visited == ["a", "b", "c"]
    assert (progress.done, progress.unchanged, progress.left) == (2, 1, 1)


def test_no_time_no_image():
    progress = ScoringProgress("x", -1.0)
    assert list(progress.over(["a", "b"])) == []
    assert progress.summary()["left"] == 2


def test_a_person_sees_how_far_it_is(caplog):
    progress = ScoringProgress("dice", float("inf"))
    with caplog.at_level(logging.INFO):
        progress.scored("case0", "0.912", 30)
        progress.failure("case1", ImageError("it is no image"))
    assert "dice: case0: 0.912; 1 scored" in caplog.text
    assert "min to go" in caplog.text
    assert "case1 skipped: it is no image" in caplog.text
    assert progress.summary()["failed"] == {"case1": "it is no image"}
