from __future__ import annotations

import json

import pytest

from lib.engine.predictor_pool import PredictorPool
from lib.scoring.annotation_stats import LONGEST_S, NAME, AnnotationStats, LabelStats, seconds_worked, totals
from lib.scoring.base import scores_of
from tests.support.phantoms import rimmed
from tests.unit.scoring.conftest import SETTINGS, save_label


@pytest.fixture
def stats(engines: PredictorPool) -> AnnotationStats:
    return AnnotationStats(SETTINGS, engines)


def test_labels_are_counted_by_class_and_by_person(stats, datastore, tmp_path, engines):
    save_label(datastore, tmp_path, 0, client_id="ann")
    save_label(datastore, tmp_path, 1, client_id="bob")
    saved = datastore.get_label_info("case0", "final")["ts"]
    datastore.update_image_info("case0", {"strategy": {"random": {"ts": saved - 90, "client_id": "ann"}}})
    summary = stats({}, datastore)
    voxels = {name: int(mask.sum()) for name, mask in rimmed(0).objects.items()}
    told = datastore.get_image_info("case0")[NAME]
    assert told["voxels"] == voxels
    assert (told["annotator"], told["saved"], told["seconds"]) == ("ann", saved, 90)
    assert datastore.get_image_info("case1")[NAME]["seconds"] is None
    assert (summary["images"], summary["labelled"]) == (3, 2)
    assert summary["labels"]["bright"] == {
        "images": 2,
        "voxels": voxels["bright"] + int(rimmed(1).objects["bright"].sum()),
    }
    assert summary["annotators"] == {
        "ann": {"count": 1, "seconds_each": 90, "seconds": 90},
        "bob": {"count": 1, "seconds_each": None, "seconds": 0},
    }
    kept = json.loads((scores_of(datastore, engines.registry.folder) / "annotation_stats.json").read_text())
    assert kept["labels"] == summary["labels"]


def test_only_labels_that_are_new_are_counted_again(stats, datastore, tmp_path):
    save_label(datastore, tmp_path, 0)
    assert stats({}, datastore)["scored"] == 1
    summary = stats({}, datastore)
    assert (summary["scored"], summary["unchanged"], summary["labelled"]) == (0, 1, 1)


def test_without_labels_all_is_nothing(stats, datastore):
    summary = stats({}, datastore)
    assert (summary["images"], summary["labelled"], summary["labels"]) == (3, 0, {})
    assert summary["everybody"] == {"count": 0, "seconds_each": None, "seconds": 0}


def given(**moments):
    return {"strategy": {name: {"ts": ts, "client_id": who} for name, (ts, who) in moments.items()}}


def test_time_is_counted_from_the_next_sample_to_the_label():
    for info, expected in [
        ({}, None),
        ({"strategy": "odd"}, None),
        (given(random=(900, "me")), 100),
        (given(random=(900, "me"), first=(950, "me")), 50),  # the last time that it was handed out
        (given(random=(900, "you")), None),
        (given(random=(900, None)), 100),  # OHIF says no name
        (given(random=(900, "admin")), 100),  # as MONAI Label notes it
        (given(random=(900, "user-xyz")), 100),  # 3D Slicer, where nobody entered one
        (given(random=(1100, "me")), None),  # after the label
        (given(random=(1000 - LONGEST_S - 1, "me")), None),
    ]:
        assert seconds_worked(info, "me", 1000) == expected


def test_totals():
    found = totals(
        [
            LabelStats({"a": 10, "b": 1}, "me", 5, 10),
            LabelStats({"a": 5}, "me", 6, 30),
            LabelStats({}, "", 0, None),
        ],
        images=7,
    )
    assert found["labels"] == {"a": {"images": 2, "voxels": 15}, "b": {"images": 1, "voxels": 1}}
    assert found["everybody"] == {"count": 3, "seconds_each": 20, "seconds": 40}
    assert found["annotators"]["me"] == {"count": 2, "seconds_each": 20, "seconds": 40}
