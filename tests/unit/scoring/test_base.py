from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from monailabel.interfaces.exception import ImageNotFoundException

from lib.datastores.label_entries import LabelEntry, image_path, label_entry, labelled, stamp
from lib.errors import DeviceError, EvaluationError, ImageError, ImageNotFoundError
from lib.scoring import base
from lib.scoring.annotation_stats import AnnotationStats
from lib.scoring.base import ScoringProgress, read_info, weights_key, write_info
from lib.scoring.registry import all_methods
from tests.unit.scoring.conftest import LABEL_INFO, SETTINGS, save_label


def test_a_file_that_was_written_again_has_another_stamp(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    first = stamp(path)
    assert stamp(path) == first
    os.utime(path, (1, 1))
    assert stamp(path) != first
    path.write_text("longer")
    os.utime(path, (1, 1))
    assert stamp(path) not in (first, "1000000000:3")


def test_a_folder_changes_with_its_files(tmp_path):
    (tmp_path / "1.dcm").write_text("one")
    first = stamp(tmp_path)
    (tmp_path / "1.dcm").write_text("other")
    assert stamp(tmp_path) != first


def test_what_is_gone_is_named(tmp_path, datastore):
    with pytest.raises(ImageNotFoundError, match="x is missing"):
        stamp(tmp_path / "x")
    with pytest.raises(ImageNotFoundError, match="x is no longer in the datastore"):
        image_path(datastore, "x")


def test_a_download_that_fails_is_an_image_that_is_not_there():
    class Remote:
        def get_image_uri(self, image_id):
            raise ConnectionError("no server")

    with pytest.raises(ImageNotFoundError, match="no server"):
        image_path(Remote(), "1.2.3")


def test_labels_are_found_by_image_and_tag(datastore, tmp_path):
    save_label(datastore, tmp_path, 1)
    save_label(datastore, tmp_path, 2, "original")
    assert [image for image, _ in labelled(datastore)] == ["case1"]
    entry = label_entry(datastore, "case1")
    assert entry.path.is_file()
    assert entry.label_info == LABEL_INFO
    assert label_entry(datastore, "case2") is None
    assert label_entry(datastore, "case2", "original").path.name == "case2.nii.gz"
    entry.path.unlink()
    assert label_entry(datastore, "case1") is None


def test_names_of_values_are_found_wherever_the_client_put_them():
    for info in (
        {"label_info": LABEL_INFO},
        {"params": {"label_info": LABEL_INFO}},
        {"label_info": [*LABEL_INFO, "odd"], "params": "odd"},
    ):
        assert LabelEntry(Path("x"), info).label_info == LABEL_INFO
    for info in ({}, {"label_info": None}, {"params": {"label_info": []}}):
        assert LabelEntry(Path("x"), info).label_info == []


def test_the_key_of_weights_is_their_content_and_how_they_are_run(engines):
    key = weights_key(engines.weights(), engines.get())
    assert key.startswith("biosam2_mini ")
    assert engines.weights().sha256[:16] in key
    assert key.endswith("at 128 px float32")


def test_facts_are_written_once_and_beside_the_others(datastore, monkeypatch):
    datastore.update_image_info("case0", {"strategy": {"random": {"ts": 1}}})
    assert write_info(datastore, "case0", {"score": {"a": (1, 2)}})
    assert read_info(datastore, "case0")["score"] == {"a": [1, 2]}
    assert read_info(datastore, "case0")["strategy"] == {"random": {"ts": 1}}
    assert not write_info(datastore, "case0", {"score": {"a": [1, 2]}})
    assert write_info(datastore, "case0", {"score": {"a": [1, 3]}})


def test_what_would_break_a_client_is_refused(datastore):
    for value in (float("nan"), float("inf"), {"deep": [float("nan")]}):
        with pytest.raises(ValueError, match="JSON"):
            write_info(datastore, "case0", {"score": value})
    assert "score" not in read_info(datastore, "case0")


def test_an_image_that_has_gone_is_left_alone(datastore):
    assert not write_info(datastore, "gone", {"score": 1})
    assert read_info(datastore, "gone") == {}


def test_a_datastore_that_keeps_no_infos_is_left_alone():
    class Remote:
        def get_image_info(self, image_id):
            raise ImageNotFoundException(image_id)

        def update_image_info(self, image_id, info):
            raise NotImplementedError

    assert not write_info(Remote(), "x", {"score": 1})


@pytest.fixture(params=[True, False], ids=["worker", "server"])
def own(request, monkeypatch) -> bool:
    """Whether the scoring runs in a process of its own."""
    monkeypatch.setattr(base, "is_worker_process", lambda: request.param)
    return request.param


def test_only_a_worker_process_gives_way_and_keeps_few_embeddings(engines, datastore, monkeypatch, own):
    calls, seen = [], []
    monkeypatch.setattr(base, "lower_priority", lambda: calls.append("lower"))
    monkeypatch.setattr(base.torch, "set_num_threads", calls.append)
    scoring = AnnotationStats(SETTINGS.model_copy(update={"embedding_cache_mb": 1024}), engines)
    monkeypatch.setattr(scoring, "score", lambda options, datastore, given: seen.append(given))
    scoring({}, datastore)
    (given,) = seen
    assert (given is engines) != own
    assert given.registry.folder == engines.registry.folder
    assert given.get().name == "biosam2_mini"
    assert calls == (["lower", max(1, (os.cpu_count() or 1) // 4)] if own else [])
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
