"""Scoring by itself: when the server starts, when a label is saved, and after a training that ended well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from sample_study.orthanc import free_port
from tests.server.test_scoring import CASES, METHOD, Scorer
from tests.support.client import LIMIT_S
from tests.support.phantoms import rimmed
from tests.support.server import APP, Server, copy_model_folder, environment
from tests.support.studies import write_nifti
from tests.unit.scoring.conftest import write_label

IMAGES = CASES[:3]
# Seconds of learning.
SHORT = {"model": "biosam2", "preset": "decoder", "image_size": 64, "max_epochs": 1, "steps_per_epoch": 2}
SHORT |= {"batch_size": 2, "val_objects": 2, "warmup_steps": 0, "device": "cpu"}


def write_studies(workdir: Path) -> Path:
    """The images of this file's tests."""
    studies = workdir / "studies"
    studies.mkdir(parents=True)
    for seed, name in enumerate(IMAGES):
        write_nifti(studies / f"{name}.nii.gz", rimmed(seed).image, rimmed(seed).affine)
    return studies


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that scores by itself, as it does where nobody says otherwise."""
    workdir = tmp_path_factory.mktemp("automatic")
    conf = {"model_dir": str(copy_model_folder(workdir / "model")), "labels": "bright,dark"}
    server = Server(write_studies(workdir), workdir, conf)
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("MONAI_LABEL_AUTO_UPDATE_SCORING", "true")
        server.start()
    yield server
    server.stop()


@pytest.fixture
def scorer(own_server: Server) -> Scorer:
    assert own_server.alive, own_server.log[-4000:]
    return Scorer(own_server.url)


def _until(found: Callable[[], bool], server: Server) -> None:
    while not found():
        assert server.alive, server.log[-4000:]
        assert "Traceback" not in server.log, server.log[-4000:]
        time.sleep(0.3)


def _tasks(scorer: Scorer) -> list[dict[str, Any]]:
    return requests.get(f"{scorer.url}/scoring/", params={"all": "true"}, timeout=LIMIT_S).json()


def test_1_images_are_scored_when_the_server_starts(scorer: Scorer, own_server: Server) -> None:
    _until(lambda: all(METHOD in scorer.info_of(image) for image in IMAGES), own_server)
    scorer.wait()
    assert [task["request"]["method"] for task in _tasks(scorer)] == ["biosam2_all"]


def test_2_asking_for_the_next_sample_scores_nothing_again(scorer: Scorer) -> None:
    for _ in range(5):
        answer = requests.post(f"{scorer.url}/activelearning/first", json={}, timeout=LIMIT_S)
        answer.raise_for_status()
    assert len(_tasks(scorer)) == 1


def test_3_a_label_that_is_saved_is_compared_with_the_model(
    scorer: Scorer, own_server: Server, tmp_path: Path
) -> None:
    scorer.label(IMAGES[0], tmp_path)
    _until(lambda: "dice" in scorer.info_of(IMAGES[0]), own_server)
    scorer.wait()
    assert len(_tasks(scorer)) == 2
    # With a label there are better prompts than a grid of clicks.
    assert scorer.info_of(IMAGES[1])[METHOD]["labels"] == ["bright", "dark"]


def test_a_training_that_ended_well_is_no_error_where_the_server_cannot_be_asked(tmp_path: Path) -> None:
    studies = write_studies(tmp_path)
    for seed, image in enumerate(IMAGES):
        write_label(studies / "labels" / "final", image, seed)
    conf = {"model_dir": str(copy_model_folder(tmp_path / "model")), "labels": "bright,dark"}
    settings = {
        "MONAI_LABEL_APP_DIR": str(APP),
        "MONAI_LABEL_STUDIES": str(studies),
        "MONAI_LABEL_APP_CONF": json.dumps(conf),
        "MONAI_LABEL_SERVER_PORT": str(free_port()),  # nobody listens there
        "BIOSAM2_SERVER_PID": str(os.getpid()),  # as in a process that a server started
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "true",
        "PYTHONPATH": os.pathsep.join([str(APP), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "monailabel.interfaces.utils.app", "-m", "train", "-r", json.dumps(SHORT)],
        env={**environment(tmp_path), **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "did not accept POST /scoring/" in done.stderr
