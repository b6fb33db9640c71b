"""Three servers on one folder and one model folder, as behind nginx; one of them is killed in the middle."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from lib.engine.model_versions import Versions
from tests.faults.test_killed_server import TRAINING
from tests.support.client import LIMIT_S, Client
from tests.support.phantoms import rimmed
from tests.support.server import Server, copy_model_folder
from tests.support.studies import write_nifti

CASES = {f"case{seed}": rimmed(seed) for seed in range(6)}
AFTER = 3  # labels
CONF = {"auto_train": str(AFTER), "strategy": "first", "threads": "1"}
WAIT_S = 300


class Replicas:
    """Servers that share their folders.

    Attributes:
        servers: All of them, also killed ones.
    """

    def __init__(self, folder: Path) -> None:
        self.studies = folder / "studies"
        self.studies.mkdir(parents=True)
        for name, case in CASES.items():
            write_nifti(self.studies / f"{name}.nii.gz", case.image, case.affine)
        conf = {**CONF, "model_dir": str(copy_model_folder(folder / "model"))}
        shared = {"MONAI_LABEL_SESSION_PATH": str(folder / "sessions")}
        workdirs = [folder / name for name in "abc"]
        for workdir in workdirs:
            workdir.mkdir()
        self.servers = [Server(self.studies, workdir, conf, env=shared) for workdir in workdirs]
        self.versions = Versions(folder / "model")
        self._labels = folder / "to_send"
        self._labels.mkdir()
        for server in self.servers:
            server.start()

    def label(self, number: int, name: str) -> bytes:
        """Saves the truth of an image through a server; returns the file."""
        objects = CASES[name].objects
        array = sum(value * mask.astype(np.uint8) for value, mask in enumerate(objects.values(), 1))
        file = write_nifti(self._labels / f"{name}.nii.gz", array, CASES[name].affine)
        answer = self.ask("PUT", number, "/datastore/label", {"image": name, "tag": "final"}, label=file)
        assert answer.status_code == 200, answer.text
        return file.read_bytes()

    def ask(
        self,
        method: str,
        number: int,
        path: str,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        **files: Path,
    ) -> requests.Response:
        """Sends a request to one of the servers."""
        sent: dict[str, Any] = {name: (file.name, file.read_bytes()) for name, file in files.items()}
        url = f"{self.servers[number].url}{path}"
        options: dict[str, Any] = {"params": query, "json": body, "files": sent or None}
        return requests.request(method, url, timeout=LIMIT_S, **options)

    def next_image(self, number: int, name: str) -> str:
        """The next image of a named annotator."""
        answer = self.ask("POST", number, "/activelearning/first", body={"client_id": name})
        return str(answer.json()["id"])

    def workers(self, method: str) -> dict[int, list[psutil.Process]]:
        """Background processes of each server for trainings or scorings."""
        return {
            number: [child for child in server.children() if ["-m", method] == _arguments(child)[3:5]]
            for number, server in enumerate(self.servers)
            if server.alive
        }

    def trainers(self) -> list[int]:
        """Servers with a training."""
        return [number for number, found in self.workers("train").items() if found]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_until(what: str, condition: Any) -> Any:
    give_up = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up, f"not within {WAIT_S} s: {what}"
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """The servers, in the order of the tests of this file."""
    made = Replicas(tmp_path_factory.mktemp("replicas"))
    yield made
    for server in made.servers:
        server.stop()


@pytest.mark.timeout(1800)
def test_each_server_knows_what_the_others_were_told(replicas: Replicas) -> None:
    names = ("ann", "bob", "cy")
    with ThreadPoolExecutor(len(names)) as pool:
        given = list(pool.map(replicas.next_image, range(len(names)), names))
    assert sorted(given) == sorted(set(given)), "two annotators have one image"
    assert replicas.next_image(1, "ann") == given[0]
    # Seen by the others at once: a load balancer may ask any of them next.
    sent = replicas.label(0, given[0])
    for number in (1, 2):
        found = replicas.ask("GET", number, "/datastore/label", {"label": given[0], "tag": "final"})
        assert found.content == sent, "the label is not that which another server was sent"
    assert replicas.next_image(2, "ann") not in given

    image = replicas.studies / "case0.nii.gz"
    session = replicas.ask("PUT", 0, "/session/", files=image).json()["session_id"]
    case = CASES["case0"]
    prompts = {"foreground": [case.click(next(iter(case.objects)))], "background": []}
    answers = [
        Client(server.url).infer("biosam2_point", "", prompts, query={"session_id": session})
        for server in replicas.servers
    ]
    assert [answer.status for answer in answers] == [200] * 3, answers[1].body
    assert answers[0].mask.any()
    assert all((answer.mask == answers[0].mask).all() for answer in answers)


@pytest.mark.timeout(1800)
def test_images_are_scored_once(replicas: Replicas) -> None:
    def score(number: int) -> dict[str, Any]:
        path = "/scoring/biosam2_uncertainty"
        answer = replicas.ask("POST", number, path, body={})
        assert answer.status_code == 200, answer.text

        def ended() -> dict[str, Any] | None:
            task = replicas.ask("GET", number, "/scoring/").json()
            return task if task["status"] not in ("SUBMITTED", "RUNNING") else None

        return wait_until("the scoring ends", ended)

    with ThreadPoolExecutor(2) as pool:
        tasks = list(pool.map(score, (0, 1)))
    assert [task["status"] for task in tasks] == ["DONE"] * 2, replicas.servers[0].log[-4000:]
    text = ["\n".join(task["details"]) for task in tasks]
    counts = [re.search(r'"scored": (\d+), "unchanged": (\d+)', found) for found in text]
    assert all(counts), text
    scored, unchanged = (sum(int(found[place]) for found in counts if found) for place in (1, 2))
    assert (scored, unchanged) == (len(CASES), len(CASES))


@pytest.mark.timeout(1800)
def test_one_server_trains_and_another_takes_over(replicas: Replicas) -> None:
    with ThreadPoolExecutor(AFTER) as pool:
        list(pool.map(replicas.label, range(AFTER), ("case3", "case4", "case5")))
    (trainer,) = wait_until("a training starts", replicas.trainers)
    other, third = (number for number in range(3) if number != trainer)
    refused = replicas.ask("POST", other, "/train/biosam2", body=TRAINING)
    assert refused.status_code == 429, refused.text
    assert "another server trains" in refused.json()["detail"]
    assert replicas.ask("DELETE", other, "/train/").status_code == 409
    seen = replicas.ask("GET", third, "/train/", {"check_if_running": "true"}).json()
    assert seen["status"] == "RUNNING"
    assert replicas.trainers() == [trainer]

    replicas.servers[trainer].kill()
    # Counted anew: those of the training that was lost, and this one.
    replicas.label(other, "case0")
    # Whichever looks first; the one that was sent the label need not be it.
    (successor,) = wait_until("another server takes over", replicas.trainers)
    assert successor in (other, third)
    stopped = replicas.ask("DELETE", successor, "/train/").json()
    assert stopped["status"] == "STOPPED"
    # Nobody starts again what a person has stopped.
    replicas.label(third, "case1")
    assert replicas.trainers() == []

    def accepted() -> bool:
        return replicas.ask("POST", third, "/train/biosam2", body=TRAINING).status_code == 200

    wait_until("the lock is released", accepted)
    wait_until("a version is published", replicas.versions.current)
    replicas.servers[trainer].start()
    for number in range(3):
        model = replicas.ask("GET", number, "/model/info/biosam2_point").json()
        assert model["name"] == "v0001", model
    assert replicas.versions.names() == ["v0001"]
    assert all("Traceback" not in server.log for server in replicas.servers)
