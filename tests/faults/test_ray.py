"""A batch on a local Ray with two workers: the answers of one process, and nothing lost with a killed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from lib.datastores.local import open_folder
from sample_study.orthanc import free_port
from tests.faults.test_replicas import wait_until
from tests.support.phantoms import rimmed
from tests.support.server import APP, REPOSITORY, copy_model_folder, environment
from tests.support.studies import write_nifti

pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")

IMAGES = [f"case{seed}" for seed in range(6)]
LABELLED, OTHERS = IMAGES[0], IMAGES[1:]
AUTO = "biosam2_auto"
START_S, LIMIT_S = 300, 900
BIN = Path(sys.executable).parent


class Archive:
    """Copies of a folder of images, one of them labelled, and the runs of ``python -m lib.batch`` on them."""

    def __init__(self, work: Path) -> None:
        self.work = work
        (work / "images").mkdir()
        for seed, name in enumerate(IMAGES):
            case = rimmed(seed)
            write_nifti(work / "images" / f"{name}.nii.gz", case.image, case.affine)
        case = rimmed(0)
        labels = sum(value * mask.astype(np.uint8) for value, mask in enumerate(case.objects.values(), 1))
        file = write_nifti(work / "label.nii.gz", labels, case.affine)
        names = [{"name": name, "idx": value} for value, name in enumerate(case.objects, 1)]
        open_folder(str(work / "images")).save_label(LABELLED, str(file), "final", {"label_info": names})
        self.port = free_port()
        self.dashboard = free_port()
        self.ray_files = tempfile.mkdtemp(prefix="ray")  # sockets below a long path cannot be opened
        paths = {"PYTHONPATH": f"{APP}:{REPOSITORY}", "RAY_TMPDIR": self.ray_files, "OMP_NUM_THREADS": "1"}
        # Ray gives its workers the lowest priority but four, and other tests would leave them nothing.
        ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
        self.env = {**environment(work), **paths, **ray}

    def copy(self, name: str) -> Path:
        """Folder ``studies`` of a copy, with a model folder of its own beside it."""
        shutil.copytree(self.work / "images", self.work / name / "studies")
        copy_model_folder(self.work / name / "model")
        return self.work / name / "studies"

    def start(self, studies: Path, model: str, on_ray: bool, **more: Any) -> subprocess.Popen[str]:
        """Starts a run, with its log on stdout."""
        command = [sys.executable, "-m", "lib.batch", "--app", str(APP), "--studies", str(studies)]
        command += ["--model", model, "--params", json.dumps(more)]
        command += ["--images", "unlabeled" if model == AUTO else "all"]
        conf = {"model_dir": str(studies.parent / "model"), "embedding_disk_gb": "1", "threads": "1"}
        for name, value in conf.items():
            command += ["--conf", name, value]
        command += ["--ray", f"127.0.0.1:{self.port}"] if on_ray else []
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=self.env, text=True, cwd=self.work, **both)

    def run(self, studies: Path, model: str, on_ray: bool, **more: Any) -> str:
        """Runs to the end; the log."""
        log, _ = self.start(studies, model, on_ray, **more).communicate(timeout=LIMIT_S)
        return log

    def start_cluster(self) -> subprocess.Popen[bytes]:
        """Starts Ray for two workers."""
        command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
        command += [f"--port={self.port}", f"--dashboard-port={self.dashboard}"]
        with (self.work / "ray.log").open("wb") as log:
            return subprocess.Popen(command, env=self.env, stdout=log, stderr=log, cwd=self.work)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive with a cluster."""
    archive = Archive(tmp_path_factory.mktemp("ray"))
    cluster = archive.start_cluster()
    wait_until("Ray starts", lambda: "Ray runtime started" in (archive.work / "ray.log").read_text())
    yield archive
    # Ends all that it has started.
    cluster.terminate()
    try:
        cluster.wait(60)
    finally:
        for child in psutil.Process(cluster.pid).children(recursive=True) if cluster.poll() is None else []:
            child.kill()
        shutil.rmtree(archive.ray_files, ignore_errors=True)


@pytest.fixture(scope="module")
def alone(archive: Archive) -> Path:
    """Studies with what one process without Ray answers."""
    studies = archive.copy("alone")
    assert "DONE: 5 done, 0 skipped, 0 failed of 5" in archive.run(studies, AUTO, False)
    for model in ("embed", "score"):
        assert "DONE: 6 done, 0 skipped, 0 failed of 6" in archive.run(studies, model, False)
    return studies


def labels(studies: Path, tag: str) -> dict[str, bytes]:
    """Label files of a tag by image."""
    return {path.name: path.read_bytes() for path in (studies / "labels" / tag).glob("*.nii.gz")}


def embeddings(studies: Path) -> dict[str, list[bytes]]:
    """Arrays of the prepared embeddings by file."""
    found = {}
    for path in (studies.parent / "model" / "embeddings").glob("*.npz"):
        with np.load(path) as arrays:
            found[path.name] = [arrays[name].tobytes() for name in arrays]
    return found


def scores(studies: Path) -> dict[str, Any]:
    """What was found about each image, without its time and the stamp of its file."""
    found = {}
    for path in (studies.parent / "model" / "scores").glob("*/case*.json"):
        facts = json.loads(path.read_text())
        found[facts["id"]] = {name: facts[name] for name in ("score", "parts", "slices", "labels", "digest")}
    return found


def running(name: str) -> list[psutil.Process]:
    """Ray's workers with a task whose name begins so; Ray shows the name as the process's title."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if " ".join(process.info["cmdline"] or []).startswith(f"ray::{name}"):
            found.append(process)
    return found


def task_names(archive: Archive) -> set[str]:
    """Names of the tasks in Ray's dashboard."""
    from ray.util.state import list_tasks

    address = f"http://127.0.0.1:{archive.dashboard}"
    return {task.name for task in list_tasks(address=address, limit=1000, timeout=60)}


def log_until(run: subprocess.Popen[str], text: str) -> str:
    """The log of a run up to the line that holds a text."""
    assert run.stdout is not None
    log = ""
    while text not in log:
        line = run.stdout.readline()
        assert line, log
        log += line
    return log


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_killed_worker_loses_nothing(
    archive: Archive, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    studies = archive.copy("worker")
    before = labels(studies, "final")
    run = archive.start(studies, AUTO, True)
    log = log_until(run, "saved (1 of 5)")
    (victim, *_) = wait_until("another image is worked on", lambda: running(AUTO))
    victim.kill()
    rest, _ = run.communicate(timeout=LIMIT_S)
    log += rest
    assert "DONE: 5 done, 0 skipped, 0 failed of 5" in log
    assert "(5 of 5)" in log
    assert labels(studies, "auto") == labels(alone, "auto")
    assert len(labels(studies, "auto")) == len(OTHERS)
    assert labels(studies, "final") == before
    assert {f"{AUTO} {name}" for name in OTHERS} <= task_names(archive)


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_run_goes_on_where_a_killed_one_ended(archive: Archive, alone: Path) -> None:
    studies = archive.copy("driver")
    run = archive.start(studies, AUTO, True, label_tag="again")
    log = log_until(run, "saved (2 of 5)")
    os.kill(run.pid, signal.SIGKILL)
    run.wait(60)
    if run.stdout is not None:
        run.stdout.close()
    wait_until("the workers of a killed run end", lambda: not running(AUTO))
    kept = {path: path.stat().st_mtime_ns for path in (studies / "labels" / "again").glob("*.nii.gz")}
    assert len(kept) >= 2
    log = archive.run(studies, AUTO, True, label_tag="again")
    assert f"DONE: {5 - len(kept)} done, {len(kept)} skipped, 0 failed of 5" in log, log[-3000:]
    assert labels(studies, "again") == labels(alone, "auto")
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    # A label that a person has saved stays, whatever its tag.
    store = open_folder(str(studies))
    store.save_label("case3", str(archive.work / "label.nii.gz"), "again", {})
    log = archive.run(studies, AUTO, True, label_tag="again", labels=["bright"])
    assert "case3" not in log
    assert "DONE: 4 done, 0 skipped, 0 failed of 4" in log, log[-3000:]
    assert labels(studies, "again")["case3.nii.gz"] == (archive.work / "label.nii.gz").read_bytes()


@pytest.mark.timeout(2 * LIMIT_S)
def test_embeddings_and_scores_are_those_of_one_process(archive: Archive, alone: Path) -> None:
    studies = archive.copy("workers")
    for model in ("embed", "score"):
        log = archive.run(studies, model, True)
        assert "DONE: 6 done, 0 skipped, 0 failed of 6" in log, log[-3000:]
    assert embeddings(studies) == embeddings(alone)
    assert len(embeddings(studies)) == 6 * rimmed(0).image.shape[2]
    assert scores(studies) == scores(alone)
    assert sorted(scores(studies)) == IMAGES
    assert "unchanged (6 of 6)" in archive.run(studies, "score", True)


def test_a_cluster_that_is_not_there_is_named(archive: Archive) -> None:
    # Ray finds the clusters of this machine by their processes, so "auto" would be that of the other tests.
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "lib.batch", "--app", str(APP), "--ray", address]
    command += ["--studies", str(archive.work / "images")]
    # The time limit is a small part of the 14 minutes that Ray tries by itself.
    done = subprocess.run(command, env=archive.env, text=True, capture_output=True, timeout=START_S)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"There is no Ray cluster at '{address}': start one with ray start --head" in done.stderr
