from __future__ import annotations

import pytest

from lib.scoring import base as method
from lib.scoring.annotation_stats import AnnotationStats
from tests.unit.scoring.conftest import SETTINGS


@pytest.mark.parametrize("own", [True, False])
def test_only_a_process_of_its_own_gives_way(engines, datastore, monkeypatch, own):
    calls = []
    monkeypatch.setattr(method, "is_own_process", lambda: own)
    monkeypatch.setattr(method, "give_way", calls.append)
    AnnotationStats(SETTINGS, engines)({}, datastore)
    assert calls == ([0] if own else [])


@pytest.mark.parametrize("own", [True, False])
def test_a_process_of_its_own_keeps_few_embeddings(engines, datastore, monkeypatch, own):
    seen = []
    monkeypatch.setattr(method, "is_own_process", lambda: own)
    monkeypatch.setattr(method, "give_way", lambda threads: None)
    scoring = AnnotationStats(SETTINGS.model_copy(update={"embedding_cache_mb": 1024}), engines)
    monkeypatch.setattr(scoring, "score", lambda options, datastore, given: seen.append(given))
    scoring({}, datastore)
    (given,) = seen
    assert (given is engines) != own
    assert given.registry.folder == engines.registry.folder
    assert given.get().name == "biosam2_mini"
    if own:
        assert given._embeddings._budget == 128 << 20


@pytest.mark.parametrize("own", [True, False])
def test_in_a_process_of_its_own_one_thread_does_what_others_wait_for(engines, datastore, monkeypatch, own):
    threads = []
    monkeypatch.setattr(datastore, "write_by", threads.append, raising=False)
    monkeypatch.setattr(method, "is_own_process", lambda: own)
    monkeypatch.setattr(method, "give_way", lambda threads: "urgent")
    AnnotationStats(SETTINGS, engines)({}, datastore)
    assert threads == (["urgent"] if own else [])
