from __future__ import annotations

import pytest

from lib.scoring import method
from lib.scoring.annotation_stats import AnnotationStats
from tests.unit.scoring.conftest import SETTINGS


@pytest.mark.parametrize("own", [True, False])
def test_only_a_process_of_its_own_gives_way(engines, datastore, monkeypatch, own):
    calls = []
    monkeypatch.setattr(method, "is_own_process", lambda: own)
    monkeypatch.setattr(method, "give_way", calls.append)
    AnnotationStats(SETTINGS, engines)({}, datastore)
    assert calls == ([0] if own else [])


def test_the_record_is_shared_before_anything_is_written(engines, datastore, open_datastore):
    AnnotationStats(SETTINGS, engines)({}, datastore)
    server = open_datastore()
    server.update_image_info("case0", {"theirs": 1})
    datastore.update_image_info("case1", {"ours": 1})
    assert open_datastore().get_image_info("case0")["theirs"] == 1
