from __future__ import annotations

import itertools
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore

from lib.engine.predictor_pool import PredictorPool
from lib.errors import BusyError
from lib.trainers import task
from lib.trainers.config import TrainingPlan
from lib.trainers.task import AutoTrain, FineTuneTask, labelled_images, labels_since
from tests.support.studies import write_nifti
from tests.unit.trainers.conftest import SETTINGS


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[TrainingPlan]:
    """Of the trainings that were started, instead of training."""
    made: list[TrainingPlan] = []
    monkeypatch.setattr(task, "launch", lambda work, plan, count: made.append(plan))
    return made


@pytest.fixture
def fine_tuning(engines: PredictorPool) -> FineTuneTask:
    return FineTuneTask(SETTINGS, engines)


def test_the_plan_says_what_was_in_service_when_it_was_made(fine_tuning, engines, datastore, plans):
    fine_tuning({}, datastore)
    # A version that is named, and cannot be served, is in service all the same: its ancestors stand for it.
    (engines.registry.folder / "current").write_text("v0007\n")
    fine_tuning({}, datastore)
    assert [(plan.published, plan.service.name) for plan in plans] == [
        (None, "biosam2_mini"),
        ("v0007", "biosam2_mini"),
    ]


def test_a_training_begins_before_its_labels_are_listed(
    fine_tuning, datastore, plans, monkeypatch: pytest.MonkeyPatch
):
    clock = itertools.count(100.0)
    monkeypatch.setattr(task.time, "time", lambda: next(clock))
    listed = []

    def list_and_look_at_the_clock(datastore):
        listed.append(next(clock))
        return []

    monkeypatch.setattr(task, "labelled_images", list_and_look_at_the_clock)
    fine_tuning({}, datastore)
    assert 100 <= plans[0].started < listed[0]


def test_a_training_that_ended_well_stays_one_whatever_is_wrong_with_its_page(
    engines, datastore, plans, caplog
):
    written = []

    def fail(folder, plan):
        written.append((folder, plan))
        raise KeyError("unexpected")

    with caplog.at_level(logging.WARNING):
        assert FineTuneTask(SETTINGS, engines, fail)({}, datastore) == {}
    assert written == [(Path(datastore._datastore_path), plans[0])]
    assert "No report after the training: 'unexpected'" in caplog.text


def test_labels_are_new_when_no_training_has_learned_from_them(fine_tuning, engines, datastore):
    label = Path(datastore.get_image_uri("a"))
    datastore.save_label("a", str(label), "final", {})
    assert fine_tuning.new_labels(datastore, 0) == 1
    folder = engines.registry.folder / "training"
    folder.mkdir()
    for status, began, count in (
        ("kept", "2020-01-01 00:00:00", 1),
        ("kept", "2120-01-01 00:00:00", 0),
        ("failed", "2120-01-01 00:00:00", 1),
    ):
        (folder / "stats.json").write_text(json.dumps({"status": status, "start_time": began}))
        assert fine_tuning.new_labels(datastore, 0) == count


class Trainings:
    """MONAI Label's queue of trainings, and labels by the time at which they were saved."""

    def __init__(self, after):
        self.saved, self.began, self.tasks, self.counted = [], 0.0, [], 0
        self.auto = AutoTrain(after, self.count, self.start)

    def count(self, moment):
        self.counted += 1
        return sum(ts > max(moment, self.began) for ts in self.saved)

    def start(self):
        if self.is_running:
            return False
        self.tasks.append({"status": "RUNNING"})
        return True

    @property
    def is_running(self):
        return any(task["status"] == "RUNNING" for task in self.tasks)

    def save(self, *times):
        for ts in times:
            self.saved.append(ts)
            self.auto.look()


@pytest.fixture
def now(monkeypatch):
    """The time of day, which does not pass by itself."""
    clock = [100.0]
    monkeypatch.setattr(task.time, "time", lambda: clock[0])
    return clock


@pytest.fixture
def queue(monkeypatch):
    """The thread of MONAI Label's queue."""
    executor = ThreadPoolExecutor(1)
    monkeypatch.setitem(task.background_executors, "train", executor)
    yield executor
    executor.shutdown()


@pytest.fixture
def trainings(monkeypatch, now):
    made = Trainings(3)
    monkeypatch.setattr(task, "tasks", lambda name: made.tasks)
    return made


def test_it_starts_after_so_many_labels_and_counts_anew(trainings, now):
    trainings.save(98, 99)
    assert trainings.tasks == []
    trainings.save(100)
    assert trainings.is_running
    trainings.tasks[0]["status"] = "DONE"
    trainings.save(101, 102)
    assert not trainings.is_running
    now[0] = 103
    trainings.save(103)
    assert len(trainings.tasks) == 2


def test_labels_from_before_a_restart_count(trainings):
    trainings.save(98, 99)
    after_the_restart = AutoTrain(3, trainings.count, trainings.start)
    trainings.saved.append(100)
    after_the_restart.look()
    assert trainings.is_running
    # Those that a training has seen do not.
    trainings.began, trainings.tasks = 101.0, []
    AutoTrain(3, trainings.count, trainings.start).look()
    assert trainings.tasks == []


@pytest.mark.parametrize(("ended", "count"), [("DONE", 2), ("ERROR", 2), ("STOPPED", 1)])
def test_labels_that_come_while_one_runs_start_the_next_at_its_end(trainings, queue, ended, count):
    trainings.tasks.append({"status": "RUNNING"})

    def run():
        trainings.save(101, 102, 103)
        trainings.tasks[0]["status"] = ended

    queue.submit(run).result()
    queue.submit(lambda: None).result()  # what was to be done at its end is done
    assert len(trainings.tasks) == count


def test_however_many_labels_come_while_one_runs_they_are_looked_at_once_at_its_end(trainings, queue):
    trainings.tasks.append({"status": "RUNNING"})

    def run():
        trainings.save(*range(101, 121))
        trainings.tasks[0]["status"] = "DONE"
        return trainings.counted

    counted = queue.submit(run).result()
    queue.submit(lambda: None).result()
    assert (len(trainings.tasks), trainings.counted - counted) == (2, 1)


def test_one_that_is_about_to_start_counts_as_running(trainings, queue):
    # MONAI Label has taken it, and its process is not there yet.
    trainings.tasks.append({"status": "SUBMITTED"})
    saved = threading.Event()

    def run():
        saved.wait()
        trainings.tasks[0]["status"] = "DONE"

    queue.submit(run)
    trainings.save(98, 99, 100)
    at_once = len(trainings.tasks)
    saved.set()
    queue.submit(lambda: None).result()
    assert (at_once, len(trainings.tasks)) == (1, 2)


def test_one_whose_process_could_not_be_started_keeps_none_from_starting(trainings, queue):
    trainings.tasks.append({"status": "SUBMITTED"})
    trainings.save(98, 99, 100)
    queue.submit(lambda: None).result()
    assert [task["status"] for task in trainings.tasks] == ["ERROR", "RUNNING"]


def test_a_training_that_ends_at_once_without_a_word_is_not_started_again_by_its_own_labels(trainings):
    trainings.save(98, 99, 100)
    trainings.tasks[0]["status"] = "ERROR"
    trainings.auto.look()
    assert len(trainings.tasks) == 1


def test_it_is_off_by_default():
    AutoTrain(0, lambda moment: 1 // 0, lambda: 1 // 0).look()


def test_final_labels_count_once_for_an_image_and_by_the_time_they_were_saved(datastore, tmp_path):
    label = Path(tmp_path / "studies" / "a.nii.gz")
    datastore.save_label("a", str(label), "original", {})
    assert labels_since(datastore, 0) == 0
    for image in ("a", "b", "a"):
        datastore.save_label(image, str(label), "final", {})
    assert labels_since(datastore, 0) == 2
    saved = datastore.get_label_info("b", "final")["ts"]
    assert labels_since(datastore, saved - 1) == 2
    assert labels_since(datastore, saved + 3600) == 0


def test_a_label_whose_time_somebody_set_to_text_counts_as_one_without_a_time(datastore):
    label = datastore.get_image_uri("a")
    for image in ("a", "b"):
        datastore.save_label(image, label, "final", {})
    datastore.update_label_info("a", "final", {"ts": "2026-11-21 10:00"})
    assert (labels_since(datastore, 0), labels_since(datastore, 1)) == (2, 1)


def test_where_the_labels_cannot_be_counted_the_one_that_was_saved_is_saved(caplog):
    def count(moment):
        raise BusyError("the store does not answer")

    with caplog.at_level(logging.WARNING):
        AutoTrain(1, count, lambda: 1 // 0).look()
    assert "Automatic training skipped: the store does not answer" in caplog.text


def test_the_id_of_a_label_is_its_name_without_its_ending():
    class Listed:
        """A datastore that lists labels of these names, and knows nothing of them."""

        def __init__(self, names):
            self._names = names

        def datalist(self):
            return [{"image": f"images/{name}", "label": f"labels/final/{name}"} for name in self._names]

        def get_label_info(self, name, tag):
            return {}

    expected = {
        "a.nii.gz": "a",
        "b.seg.nrrd": "b",
        "C.NII.GZ": "C",
        "d.nrrd": "d",
        "1.2.840.10008.nrrd": "1.2.840.10008",
        "slide.one.xml": "slide.one",
    }
    found = {item.label.name: item.id for item in labelled_images(Listed(expected))}
    assert found == expected


def test_final_labels_of_a_local_datastore_with_the_names_that_the_client_sent(tmp_path):
    for name in ("one", "two", "three"):
        write_nifti(tmp_path / f"{name}.nii.gz", np.ones((4, 4, 4), np.int16), np.eye(4))
    datastore = LocalDatastore(str(tmp_path), extensions=["*.nii.gz"], auto_reload=False)
    label = write_nifti(tmp_path.parent / "label.nii.gz", np.ones((4, 4, 4), np.uint8), np.eye(4))
    info = {"label_info": [{"name": "spleen", "idx": 1}], "client_id": "me"}
    datastore.save_label("one", str(label), "final", info)
    datastore.save_label("two", str(label), "original", {})
    (item,) = labelled_images(datastore)
    assert (item.id, item.image.name, item.label.name) == ("one", "one.nii.gz", "one.nii.gz")
    assert [entry["name"] for entry in item.label_info] == ["spleen"]
    json.dumps(item.label_info)
