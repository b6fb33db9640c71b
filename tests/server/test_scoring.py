"""Scoring over HTTP: started, watched, stopped, gone on with; what people save meanwhile is not lost."""

from __future__ import annotations

import ast
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.support.client import LIMIT_S, Client
from tests.support.phantoms import rimmed
from tests.support.server import Server, copy_model_folder
from tests.support.studies import write_nifti

METHOD = "biosam2_uncertainty"
CASES = [f"case{seed:02}" for seed in range(6)]
LABEL_INFO = [{"name": "bright", "idx": 1}, {"name": "dark", "idx": 2}]


class Scorer(Client):
    """A client that scores and labels."""

    def start(self, method: str = METHOD, params: Any = None, **query: str) -> requests.Response:
        """POST /scoring/{method}."""
        path = f"{self.url}/scoring/{method}"
        return requests.post(path, json=params or {}, params=query, timeout=LIMIT_S)

    def status(self) -> dict[str, Any]:
        """GET /scoring/: the last task."""
        answer = requests.get(f"{self.url}/scoring/", timeout=LIMIT_S)
        answer.raise_for_status()
        return answer.json()

    def wait(self) -> dict[str, Any]:
        """What the last task found, when it has ended well."""
        while (task := self.status())["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(0.3)
        assert task["status"] == "DONE", list(task["details"])
        line = next(line for line in task["details"] if "Result: " in line)
        return json.loads(line.split("Result: ", 1)[1])

    def info_of(self, image: str) -> dict[str, Any]:
        """GET /datastore/image/info, without NaN and infinities."""
        answer = requests.get(f"{self.url}/datastore/image/info", params={"image": image}, timeout=LIMIT_S)
        return json.loads(answer.text, parse_constant=ast.literal_eval)

    def scored(self) -> list[str]:
        """The images whose info has a score."""
        return [image for image in CASES if METHOD in self.info_of(image)]

    def label(self, image: str, folder: Path, tag: str = "final") -> None:
        """PUT /datastore/label as Slicer sends it."""
        phantom = rimmed(CASES.index(image))
        values = sum(value * mask.astype(np.uint8) for value, mask in enumerate(phantom.objects.values(), 1))
        path = write_nifti(folder / f"{image}.nii.gz", values, phantom.affine)
        answer = requests.put(
            f"{self.url}/datastore/label",
            params={"image": image, "tag": tag},
            data={"params": json.dumps({"label_info": LABEL_INFO, "client_id": image})},
            files={"label": (path.name, path.read_bytes())},
            timeout=LIMIT_S,
        )
        answer.raise_for_status()

    def label_info(self, image: str) -> dict[str, Any]:
        """GET /datastore/label/info of the final label."""
        asked = {"label": image, "tag": "final"}
        return requests.get(f"{self.url}/datastore/label/info", params=asked, timeout=LIMIT_S).json()


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that scores nothing by itself; the tests of this file change its datastore in their order."""
    workdir = tmp_path_factory.mktemp("scoring")
    studies = workdir / "studies"
    studies.mkdir()
    for seed, name in enumerate(CASES):
        write_nifti(studies / f"{name}.nii.gz", rimmed(seed).image, rimmed(seed).affine)
    conf = {"model_dir": str(copy_model_folder(workdir / "model")), "labels": "bright,dark"}
    server = Server(studies, workdir, conf)
    yield server.start()
    server.stop()


@pytest.fixture
def scorer(own_server: Server) -> Scorer:
    assert own_server.alive, own_server.log[-4000:]
    return Scorer(own_server.url)


def test_1_what_is_wrong_is_refused_before_anything_starts(scorer: Scorer) -> None:
    assert set(scorer.info()["scoring"]) >= {METHOD, "dice", "nsd", "annotation_stats"}
    answer = scorer.start("no_such_scoring")
    assert answer.status_code == 404
    assert METHOD in answer.json()["detail"]
    for options, word in (
        ({"slices": 0}, "slices"),
        ({"images": "some"}, "images"),
        ({"speed": 2}, "speed"),
        ({"device": "cuda:9"}, "cuda:9"),
    ):
        answer = scorer.start(params=options)
        assert answer.status_code == 400, answer.text
        assert word in answer.json()["detail"]
        assert scorer.start(params=options, run_sync="true").status_code == 400
    assert requests.get(f"{scorer.url}/scoring/", timeout=LIMIT_S).status_code == 404


def test_2_it_gives_way_can_be_stopped_and_loses_no_label(
    scorer: Scorer, own_server: Server, tmp_path: Path
) -> None:
    scorer.label(CASES[0], tmp_path)
    assert scorer.start().status_code == 200
    while len(scorer.scored()) < 2:
        assert scorer.status()["status"] in ("SUBMITTED", "RUNNING"), list(scorer.status()["details"])
        time.sleep(0.1)
    assert scorer.start().status_code == 429
    if sys.platform == "linux":
        assert max(child.nice() for child in own_server.children()) >= 10
    for image in CASES[1:4]:
        scorer.label(image, tmp_path)
    # The one that waits for its end is stopped with it.
    requests.post(f"{scorer.url}/scoring/", json={}, timeout=LIMIT_S).raise_for_status()
    assert scorer.status()["status"] == "SUBMITTED"
    stopped = requests.delete(f"{scorer.url}/scoring/", timeout=LIMIT_S).json()
    assert (stopped["status"], stopped["request"]["method"]) == ("STOPPED", METHOD)
    assert scorer.status()["status"] == "STOPPED"
    for image in CASES[:4]:
        told = scorer.label_info(image)
        assert (told["label_info"], told["client_id"]) == (LABEL_INFO, image)
    assert 2 <= len(scorer.scored()) < len(CASES)


def test_3_the_next_call_goes_on_and_the_one_after_finds_nothing_to_do(
    scorer: Scorer, own_server: Server
) -> None:
    before = len(scorer.scored())
    assert scorer.start().status_code == 200
    found = scorer.wait()
    assert found["unchanged"] >= before
    assert found["scored"] + found["unchanged"] == len(CASES)
    assert scorer.start().status_code == 200
    found = scorer.wait()
    assert (found["scored"], found["unchanged"], found["failed"]) == (0, len(CASES), {})
    record = json.loads((own_server.studies / "datastore_v2.json").read_text())["objects"]
    for image in CASES[:4]:
        assert record[image]["labels"]["final"]["info"]["label_info"] == LABEL_INFO
        assert scorer.label_info(image)["client_id"] == image


def test_4_every_image_says_its_score_and_what_it_is_made_of(scorer: Scorer) -> None:
    scores = []
    for image in CASES:
        told = scorer.info_of(image)[METHOD]
        assert 0 <= told["score"] <= 1
        assert set(told["parts"]) == {"entropy", "jitter", "presence", "predicted_iou", "stability"}
        assert all(0 <= value <= 1 for value in told["parts"].values())
        assert 0 <= told["slice"] < 9
        assert told["labels"] == ["bright", "dark"]
        assert told["weights"] == "biosam2_mini"
        scores.append(told["score"])
    assert len(set(scores)) > 1


def test_5_all_methods_run_in_one_process(scorer: Scorer, tmp_path: Path) -> None:
    scorer.label(CASES[0], tmp_path, tag="original")
    assert list(scorer.start("").json()) == ["biosam2_all"]
    found = scorer.wait()
    assert found["agreement"]["scored"] == found["agreement"]["dice"]["images"] == 4
    assert found["annotation_stats"]["labels"]["bright"]["images"] == 4
    assert found[METHOD]["scored"] == 0
    kept, asked = scorer.info_of(CASES[0]), scorer.info_of(CASES[1])
    assert (kept["dice"], kept["nsd"], kept["dice_details"]["against"]) == (1.0, 1.0, "original")
    assert 0 < asked["dice"] < 1
    assert asked["dice_details"]["against"] == "model"
    assert asked["annotation_stats"]["annotator"] == CASES[1]
