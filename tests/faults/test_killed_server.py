"""A server that is killed at random moments loses no label and no version that it has acknowledged."""

from __future__ import annotations

import hashlib
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from lib.engine.model_versions import Versions
from tests.faults.launcher import KillableServer
from tests.support.client import LIMIT_S, Client
from tests.support.datastore import CT, TRUTH
from tests.support.studies import write_nifti

# Seconds from the start of the work to the kill. Background processes need ten to start on two busy cores.
MOMENTS = {
    "save": (0.0, 1.5),
    "train": (0.0, 25.0),
    "publish": (0.0, 12.0),
    "score": (0.0, 15.0),
    "batch": (0.0, 4.0),
}
WEIGHTS = {"save": 50, "train": 12, "publish": 8, "score": 12, "batch": 18}
# Background processes find out that the server has gone when they have imported their libraries.
CHILDREN_LIMIT_S = 200
IMAGES = ("ct", "ct_nrrd", "ct_linked")
TRAINING = {"preset": "decoder", "image_size": 64, "max_epochs": 1, "steps_per_epoch": 2, "batch_size": 2}
TRAINING |= {"val_objects": 1, "min_gain": 0.0, "learning_rate": 1e-6}


class Annotator:
    """Saves one label after the other, each with its own content and class name, until the server is gone.

    Attributes:
        acknowledged: Last label that was answered with 200, by image: digest of the file, and class name.
        sent: Label without an answer, by image.
    """

    def __init__(self, folder: Path) -> None:
        self.acknowledged: dict[str, tuple[str, str]] = {}
        self.sent: dict[str, tuple[str, str]] = {}
        self._folder = folder
        self._count = 0

    def work(self, url: str) -> None:
        """Saves labels until the server does not answer."""
        while True:
            self._count += 1
            image, name = IMAGES[self._count % len(IMAGES)], f"class {self._count}"
            label = np.roll(TRUTH, self._count % 5, axis=0)
            file = write_nifti(self._folder / "label.nii.gz", label, CT.affine)
            said = (hashlib.sha256(file.read_bytes()).hexdigest(), name)
            self.sent[image] = said
            params = f'{{"label_info": [{{"name": "{name}", "idx": 1}}, {{"name": "organ", "idx": 2}}]}}'
            try:
                answer = requests.put(
                    f"{url}/datastore/label",
                    params={"image": image, "tag": "final"},
                    files={"label": (file.name, file.read_bytes()), "params": (None, params)},
                    timeout=LIMIT_S,
                )
            except requests.RequestException:
                return
            assert answer.status_code == 200, answer.text
            self.acknowledged[image] = said

    def check(self, url: str) -> None:
        """Compares what the server has with what it has acknowledged."""
        for image, acknowledged in self.acknowledged.items():
            tagged = {"label": image, "tag": "final"}
            file = requests.get(f"{url}/datastore/label", params=tagged, timeout=LIMIT_S)
            info = requests.get(f"{url}/datastore/label/info", params=tagged, timeout=LIMIT_S).json()
            assert file.status_code == 200, f"the label of {image} is lost: {file.text}"
            found = hashlib.sha256(file.content).hexdigest()
            allowed = (acknowledged, self.sent[image])
            assert found in {digest for digest, _ in allowed}, f"the label of {image} is another one"
            names = {name for _, name in allowed}
            assert info["label_info"][0]["name"] in names, f"the class names of {image} are lost: {info}"


def begin(server: KillableServer, work: str) -> None:
    """Starts background work; the annotator saves labels meanwhile in any case."""
    route, body = {
        "save": ("", {}),
        "train": ("/train/biosam2", TRAINING),
        "publish": ("", {}),
        "score": ("/scoring/biosam2_uncertainty", {"max_images": 3}),
        "batch": ("/batch/infer/biosam2_point", {"foreground": [CT.click("lesion")], "label_tag": "batch"}),
    }[work]
    if route:
        answer = requests.post(f"{server.url}{route}", json=body, timeout=LIMIT_S)
        assert answer.status_code < 500, answer.text


def publish(server: KillableServer, acknowledged: list[str]) -> None:
    """Uploads weights, each of which is put in service as a new version, until the server is gone.

    A training ends in the same way, but only where it has learned something.
    """
    weights = (server.model_dir / "biosam2_mini.pt").read_bytes()
    while True:
        try:
            answer = requests.put(
                f"{server.url}/model/biosam2_point", files={"file": ("new.pt", weights)}, timeout=LIMIT_S
            )
        except requests.RequestException:
            return
        assert answer.status_code == 200, answer.text
        acknowledged.append(answer.json()["version"])


def versions(server: KillableServer) -> dict[str, str]:
    """Digest of the weights of each complete version."""
    store = Versions(server.model_dir)
    return {name: hashlib.sha256(store.weights_path(name).read_bytes()).hexdigest() for name in store.names()}


@pytest.mark.timeout(1800)
def test_nothing_acknowledged_is_lost_whenever_the_server_is_killed(
    server: KillableServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(request.config.getoption("seed"))
    annotator = Annotator(tmp_path)
    published: dict[str, str] = {}
    served: list[str] = []
    done: dict[str, int] = dict.fromkeys(MOMENTS, 0)
    orphans: list[psutil.Process] = []
    for number in range(request.config.getoption("kills")):
        (work,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values())) if number else ("save",)
        saving = threading.Thread(target=annotator.work, args=(server.url,))
        saving.start()
        begin(server, work)
        publishing = threading.Thread(target=publish, args=(server, served))
        if work == "publish":
            publishing.start()
        time.sleep(rng.uniform(*MOMENTS[work]))
        published = versions(server)
        children = server.children()
        server.kill()
        saving.join()
        if work == "publish":
            publishing.join()
        orphans += children
        server.start()
        annotator.check(server.url)
        now = versions(server)
        assert published.items() <= now.items(), f"kill {number} ({work}): a version is lost"
        assert set(served) <= set(now), f"kill {number} ({work}): a version that was acknowledged is lost"
        mask = Client(server.url).infer("biosam2_point", "ct", {"foreground": [CT.click("lesion")]})
        assert mask.status == 200, mask.body[:500]
        left = [path.name for path in tmp_path.rglob(".*.part-*") if "tmp" not in path.parts]
        assert left == [], f"kill {number} ({work}): temporary files are left: {left}"
        done[work] += 1
    _, alive = psutil.wait_procs(orphans, CHILDREN_LIMIT_S)
    assert alive == [], "background processes of killed servers go on"
    assert "Traceback" not in server.log
    sys.stdout.write(f"killed while {done}, with {len(orphans)} background processes, {len(now)} versions\n")
