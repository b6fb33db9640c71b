import json
import os
import subprocess
import sys

import pytest

from lib.trainers.progress import TrainingProgress, read_stats, started_at, stats_since
from tests.unit.trainers.conftest import STARTED


def test_there_are_no_numbers_before_the_first_training(tmp_path):
    assert read_stats(tmp_path / "training") == {}


def test_when_the_last_training_began_is_a_moment(tmp_path):
    assert started_at(tmp_path) == 0
    TrainingProgress(tmp_path, 20, STARTED)
    assert read_stats(tmp_path)["start_time"] == "2001-09-09 01:46:40"
    assert started_at(tmp_path) == STARTED


@pytest.mark.parametrize("status", ["published", "kept"])
def test_a_training_that_failed_has_learned_from_no_label(tmp_path, status):
    TrainingProgress(tmp_path, 20, STARTED).end("failed", "the disk is full")
    assert started_at(tmp_path) == 0
    TrainingProgress(tmp_path, 20, STARTED + 100).end(status, "done")
    # Labels from before the last one that has learned stay old, however many fail after it.
    for later in (200, 300):
        failing = TrainingProgress(tmp_path, 20, STARTED + later)
        assert started_at(tmp_path) == STARTED + later
        failing.end("failed", "the disk is full")
        assert started_at(tmp_path) == STARTED + 100


def test_what_viewers_show_while_it_runs(tmp_path):
    progress = TrainingProgress(tmp_path, 20, STARTED)
    progress.note("measured", before={"dice": 0.5})
    progress.epoch(3, {"total": 0.7}, {"1 click": 0.4}, 0.61, 12.0)
    stats = read_stats(tmp_path)
    assert (stats["epoch"], stats["total_epochs"], stats["best_metric"]) == (3, 20, 0.61)
    assert "total_time" not in stats
    assert stats["status"] == "running"
    assert "epoch 3 of 20" in stats["message"]
    assert "before 0.500" in stats["message"]
    progress.end("published", "v0001 is in service", version="v0001")
    assert read_stats(tmp_path)["total_time"] == "00:00:00"


def test_numbers_of_an_older_training_are_not_those_of_a_new_task(tmp_path):
    assert stats_since(tmp_path, STARTED) == {}
    TrainingProgress(tmp_path, 20, STARTED)
    assert stats_since(tmp_path, STARTED)["total_epochs"] == 20
    assert stats_since(tmp_path, STARTED + 1) == {}


def test_the_best_stays_when_an_epoch_is_worse(tmp_path):
    progress = TrainingProgress(tmp_path, 20, STARTED)
    for epoch, score in enumerate((0.3, 0.6, 0.5), 1):
        progress.epoch(epoch, {}, {}, score, 1.0)
    assert read_stats(tmp_path)["best_metric"] == 0.6


def test_no_nan_reaches_a_viewer(tmp_path):
    progress = TrainingProgress(tmp_path, 20, STARTED)
    progress.epoch(1, {"total": float("nan"), "dice": 0.25}, {"box": float("inf")}, 0.1, 1.0)
    text = (tmp_path / "stats.json").read_text()
    stats = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert stats["train"] == {"dice": 0.25}


def test_a_training_whose_process_has_gone_was_stopped(tmp_path):
    code = "import sys; from pathlib import Path; from lib.trainers.progress import TrainingProgress; "
    code += "TrainingProgress(Path(sys.argv[1]), 5, 1e9); import os; os._exit(9)"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    stats = read_stats(tmp_path)
    assert stats["status"] == "stopped"
    assert "resumes" in stats["message"]
    # It has learned from no label, whoever cut it off.
    assert started_at(tmp_path) == 0


def test_damaged_numbers_are_none(tmp_path):
    (tmp_path / "stats.json").write_text('{"status": "runn')
    assert read_stats(tmp_path) == {}


def test_events_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    progress = TrainingProgress(tmp_path, 5, STARTED)
    progress.epoch(1, {"total": 0.7}, {"1 click": 0.4}, 0.5, 1.0)
    progress.epoch(2, {"total": 0.6}, {"1 click": 0.5}, 0.6, 1.0)
    progress.end("kept", "done")
    events = EventAccumulator(str(progress.events)).Reload()
    assert [round(event.value, 3) for event in events.Scalars("validation/score")] == [0.5, 0.6]
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2]
