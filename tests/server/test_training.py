"""Label, press Train, wait, and click again: over HTTP, as the viewers do it, on a server of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests

from tests.support.client import LIMIT_S, Client
from tests.support.phantoms import dice, rimmed
from tests.support.server import Server, copy_model_folder
from tests.support.studies import write_nifti

CASES = {f"case{seed}": rimmed(seed) for seed in range(4)}
UNLABELLED = "case3"
TRAINER = "biosam2"
# Seconds of learning; enough for the rims of the phantoms.
SHORT = {"preset": "decoder", "image_size": 128, "max_epochs": 3, "steps_per_epoch": 12, "batch_size": 3}
SHORT |= {"learning_rate": 5e-4, "clip_share": 0.1, "warmup_steps": 5}
ENDLESS = {**SHORT, "max_epochs": 10_000, "early_stop_patience": 0}


class Annotator(Client):
    """A client that labels and trains."""

    def label(self, image: str, folder: Path, tag: str = "final") -> None:
        """PUT /datastore/label as Slicer sends it."""
        objects = CASES[image].objects
        array = sum(value * mask.astype(np.uint8) for value, mask in enumerate(objects.values(), 1))
        path = write_nifti(folder / f"{image}.nii.gz", array, CASES[image].affine)
        info = [{"name": name, "idx": value} for value, name in enumerate(objects, 1)]
        answer = requests.put(
            f"{self.url}/datastore/label",
            params={"image": image, "tag": tag},
            data={"params": json.dumps({"label_info": info, "client_id": "me"})},
            files={"label": (path.name, path.read_bytes())},
            timeout=LIMIT_S,
        )
        answer.raise_for_status()

    def train(self, options: dict[str, Any], path: str = f"/train/{TRAINER}") -> requests.Response:
        """POST /train/..."""
        return requests.post(f"{self.url}{path}", json=options, timeout=LIMIT_S)

    def is_training(self) -> bool:
        """As OHIF asks."""
        answer = requests.get(f"{self.url}/train/", params={"check_if_running": "true"}, timeout=LIMIT_S)
        return answer.status_code == 200 and answer.json()["status"] == "RUNNING"

    def wait(self) -> dict[str, Any]:
        """The task as MONAI Label has it, when it has ended."""
        while True:
            task: dict[str, Any] = requests.get(f"{self.url}/train/", timeout=LIMIT_S).json()
            if task["status"] not in ("SUBMITTED", "RUNNING"):
                return task
            time.sleep(0.3)

    def trainings(self) -> list[dict[str, Any]]:
        """All tasks since the server started."""
        asked = {"all": "true"}
        return requests.get(f"{self.url}/train/", params=asked, timeout=LIMIT_S).json()

    @property
    def stats(self) -> dict[str, Any]:
        """The numbers that viewers show."""
        return self.info()["train_stats"][TRAINER]

    def click(self) -> tuple[float, str]:
        """Mean Dice of a click on each body of the case without a label, and the weights that answered."""
        phantom = CASES[UNLABELLED]
        found = []
        for name, truth in phantom.objects.items():
            place = phantom.click(name)
            prompts = {"foreground": [place], "result_extension": ".nrrd"}
            answer = self.segment("biosam2_point", UNLABELLED, prompts)
            found.append(dice(answer.mask[:, :, place[2]], truth[:, :, place[2]]))
        return float(np.mean(found)), answer.params["model"]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model folder and labels the tests of this file change, one after the other."""
    workdir = tmp_path_factory.mktemp("training")
    studies = workdir / "studies"
    studies.mkdir()
    for name, phantom in CASES.items():
        write_nifti(studies / f"{name}.nii.gz", phantom.image, phantom.affine)
    conf = {"model_dir": str(copy_model_folder(workdir / "model")), "labels": "bright,dark"}
    server = Server(studies, workdir, conf)
    yield server.start()
    server.stop()


@pytest.fixture
def annotator(own_server: Server) -> Annotator:
    assert own_server.alive, own_server.log[-4000:]
    return Annotator(own_server.url)


def test_1_the_options_are_those_of_info_and_wrong_ones_are_refused(annotator: Annotator) -> None:
    assert list(annotator.info()["trainers"]) == [TRAINER]
    for options, word in (
        ({"max_epochs": 0}, "max_epochs"),
        ({"preset": "best"}, "preset"),
        ({"epochs": 4}, "epochs"),
        ({"device": "cuda:9"}, "cuda:9"),
        ({"learning_rate": "fast"}, "learning_rate"),
    ):
        answer = annotator.train(options)
        assert answer.status_code == 400, answer.text
        assert word in answer.json()["detail"]
        assert annotator.train({TRAINER: options}, "/train/").status_code == 400
    answer = annotator.train({}, "/train/other")
    assert answer.status_code == 404
    assert TRAINER in answer.json()["detail"]
    assert requests.get(f"{annotator.url}/train/", timeout=LIMIT_S).status_code == 404


def test_2_without_labels_the_status_says_why(annotator: Annotator) -> None:
    assert annotator.train({}).status_code == 200
    task = annotator.wait()
    assert task["status"] == "ERROR"
    assert any("at least 2" in line for line in task["details"])
    assert annotator.stats["status"] == "failed"
    assert "Label more images" in annotator.stats["message"]


def test_3_a_training_that_is_stopped_breaks_nothing(
    annotator: Annotator, tmp_path: Path, own_server: Server
) -> None:
    for image in CASES:
        if image != UNLABELLED:
            annotator.label(image, tmp_path)
    before = annotator.click()
    # OHIF starts all trainers at once, with the options by their names.
    assert annotator.train({TRAINER: ENDLESS}, "/train/").status_code == 200
    while annotator.stats.get("epoch", 0) < 1 or annotator.stats["status"] != "running":
        assert requests.get(f"{annotator.url}/train/", timeout=LIMIT_S).json()["status"] != "ERROR"
        time.sleep(0.3)
    assert annotator.is_training()
    assert annotator.train(SHORT).status_code == 429
    assert requests.delete(f"{annotator.url}/train/", timeout=LIMIT_S).json()["status"] == "STOPPED"
    assert annotator.wait()["status"] == "STOPPED"
    # A killed process takes a moment to be gone.
    while annotator.is_training() or annotator.stats["status"] == "running":
        time.sleep(0.2)
    assert annotator.stats["status"] == "stopped"
    assert annotator.click() == before
    labels = own_server.studies / "labels" / "final"
    assert sorted(path.name for path in labels.iterdir()) == [f"case{n}.nii.gz" for n in range(3)]
    assert set(np.unique(np.asarray(nib.load(labels / "case0.nii.gz").dataobj))) == {0, 1, 2}


def test_4_the_next_click_is_better_without_a_restart(annotator: Annotator, own_server: Server) -> None:
    before, name = annotator.click()
    assert name == "biosam2_mini"
    assert annotator.train(SHORT).status_code == 200
    task = annotator.wait()
    assert task["status"] == "DONE", list(task["details"])
    stats = annotator.stats
    assert stats["status"] == "published", stats
    assert stats["best_metric"] > stats["before"]["dice"]
    assert (stats["epoch"], stats["total_epochs"]) == (3, 3)
    # What a client that polls the training sees: the same numbers, the decision and its reason.
    assert task["stats"] == stats
    assert stats["published"] is True
    assert f"{stats['after']['dice']:.3f} after" in stats["reason"]
    after, name = annotator.click()
    assert name == "v0001"
    assert after > before + 0.05
    assert "v0001" in str(annotator.info()["models"]["biosam2_point"]["weights"])
    pages = Path(own_server.conf["model_dir"]) / "training"
    assert "Published" in (pages / "report.html").read_text()
    assert "v0001 (in service)" in (pages / "overview.html").read_text()


def test_5_the_weights_can_be_had_and_their_history_is_known(annotator: Annotator, tmp_path: Path) -> None:
    info = requests.get(f"{annotator.url}/model/info/{TRAINER}", timeout=LIMIT_S).json()
    assert info["name"] == "v0001"
    assert info["versions"]["v0001"]["parent"] == "biosam2_mini"
    assert info["versions"]["v0001"]["after"]["dice"] > info["versions"]["v0001"]["before"]["dice"]
    answer = requests.get(f"{annotator.url}/model/biosam2_point", timeout=LIMIT_S)
    (tmp_path / "mine.pt").write_bytes(answer.content)
    assert len(answer.content) > 1_000_000


def test_6_going_back_is_a_request(annotator: Annotator) -> None:
    published, _ = annotator.click()
    answer = requests.delete(f"{annotator.url}/model/{TRAINER}", timeout=LIMIT_S)
    assert answer.json() == {"version": "biosam2_mini"}
    worse, name = annotator.click()
    assert name == "biosam2_mini"
    assert worse < published
    again = requests.delete(f"{annotator.url}/model/{TRAINER}", timeout=LIMIT_S)
    assert again.status_code == 409


def test_7_weights_that_are_brought_are_checked_and_served(annotator: Annotator, own_server: Server) -> None:
    weights = Path(own_server.conf["model_dir"]) / "versions" / "v0001" / "weights.pt"
    whole = weights.read_bytes()
    for content in (b"no weights", whole[: len(whole) // 2]):
        answer = _upload(annotator, content)
        assert answer.status_code == 422, answer.text
        assert annotator.click()[1] == "biosam2_mini"
    assert _upload(annotator, whole).json()["version"] == "v0002"
    better, name = annotator.click()
    assert name == "v0002"
    requests.delete(f"{annotator.url}/model/{TRAINER}", timeout=LIMIT_S)
    assert annotator.click()[0] < better


def test_8_a_restart_can_go_to_any_version(annotator: Annotator, own_server: Server) -> None:
    own_server.stop()
    own_server.conf["rollback"] = "v0001"
    own_server.start()
    assert annotator.click()[1] == "v0001"
    own_server.stop()
    own_server.conf["rollback"] = "v0099"
    with pytest.raises(RuntimeError, match="v0099"):
        own_server.start()
    del own_server.conf["rollback"]
    own_server.start()
    assert annotator.click()[1] == "v0001"


def test_9_a_training_starts_by_itself_after_so_many_labels(
    annotator: Annotator, own_server: Server, tmp_path: Path
) -> None:
    own_server.stop()
    own_server.conf["auto_train"] = "2"
    own_server.start()
    annotator.label("case0", tmp_path)
    annotator.label("case0", tmp_path)
    annotator.label("case1", tmp_path, tag="original")
    # A restart forgets none of them.
    own_server.stop()
    own_server.start()
    assert requests.get(f"{annotator.url}/train/", timeout=LIMIT_S).status_code == 404
    annotator.label("case1", tmp_path)
    task = requests.get(f"{annotator.url}/train/", timeout=LIMIT_S).json()
    assert task["request"]["preset"] == "decoder"
    while not annotator.is_training():
        time.sleep(0.2)
    requests.delete(f"{annotator.url}/train/", timeout=LIMIT_S)


def test_a_training_starts_by_itself_at_the_end_of_the_one_that_labels_came_in(
    annotator: Annotator, own_server: Server, tmp_path: Path
) -> None:
    own_server.stop()
    own_server.conf["auto_train"] = "0"
    own_server.start()
    for image in ("case0", "case1"):
        annotator.label(image, tmp_path)
    own_server.stop()
    own_server.conf["auto_train"] = "2"
    own_server.start()
    assert annotator.train(SHORT).status_code == 200
    while annotator.stats.get("status") != "running":
        assert own_server.alive, own_server.log[-4000:]
        time.sleep(0.2)
    for image in ("case0", "case1"):
        annotator.label(image, tmp_path)
    while len(tasks := annotator.trainings()) < 2:
        assert own_server.alive, own_server.log[-4000:]
        time.sleep(0.2)
    assert (tasks[0]["status"], tasks[0]["request"]["max_epochs"]) == ("DONE", SHORT["max_epochs"])
    assert "max_epochs" not in tasks[1]["request"]
    while not annotator.is_training():
        time.sleep(0.2)
    requests.delete(f"{annotator.url}/train/", timeout=LIMIT_S)


def _upload(annotator: Annotator, content: bytes) -> requests.Response:
    return requests.put(
        f"{annotator.url}/model/{TRAINER}", files={"file": ("weights.pt", content)}, timeout=LIMIT_S
    )
