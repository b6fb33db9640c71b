from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path

import pytest

from lib.dashboard import page
from lib.engine.predictor_pool import PredictorPool
from lib.trainers import task
from lib.trainers.config import TrainingPlan
from lib.trainers.task import FineTuneTask
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

    monkeypatch.setattr(task, "labelled_cases", list_and_look_at_the_clock)
    fine_tuning({}, datastore)
    assert 100 <= plans[0].started < listed[0]


def test_a_training_that_ended_well_stays_one_whatever_is_wrong_with_its_page(
    fine_tuning, engines, datastore, plans, monkeypatch, caplog
):
    def fail(records):
        raise KeyError("what nobody thought of")

    monkeypatch.setattr(page, "labels_over_time", fail)
    with caplog.at_level(logging.WARNING):
        assert fine_tuning({}, datastore) == {}
    assert "overview cannot be written: 'what nobody thought of'" in caplog.text


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
