"""A server that is killed at random moments loses no label and no version that it has acknowledged."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from lib.engine.model_versions import Versions
from tests.support.client import LIMIT_S, Client
from tests.support.datastore import CT, TRUTH
from tests.support.server import Server
from tests.support.studies import write_nifti

# Number of kills of 100 for each kind of work, and the longest time from its start to the kill in seconds.
# Background processes need ten seconds to start on two busy cores.
KILLS = {
    "save": (48, 1.5),
    "train": (10, 20.0),
    "publish": (12, 0.5),
    "upload": (6, 3.0),
    "score": (12, 15.0),
    "batch": (12, 4.0),
}
# Background processes find out that the server has gone when they have imported their libraries.
CHILDREN_LIMIT_S = 200
PUBLISHING_LIMIT_S = 240
IMAGES = ("ct", "ct_nrrd", "ct_linked")
# As good as before, which is accepted: every training that ends publishes a version.
TRAINING = {"preset": "decoder", "image_size": 256, "max_epochs": 1, "steps_per_epoch": 2, "batch_size": 2}
TRAINING |= {"val_objects": 1, "min_gain": 0.0, "learning_rate": 1e-12, "clip_share": 0.0, "warmup_steps": 0}


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
            name = info["label_info"][0]["name"]
            assert name in {name for _, name in allowed}, f"the class names of {image} are lost: {info}"
            # From now on the server has to keep it, also where it had not answered.
            self.acknowledged[image] = (found, name)


def begin(server: Server, work: str) -> None:
    """Starts background work; the annotator saves labels meanwhile in any case."""
    route, body = {
        "train": ("/train/biosam2", TRAINING),
        "publish": ("/train/biosam2", TRAINING),
        "score": ("/scoring/biosam2_uncertainty", {"max_images": 3}),
        "batch": ("/batch/infer/biosam2_point", {"foreground": [CT.click("lesion")], "label_tag": "batch"}),
    }.get(work, ("", {}))
    if route:
        answer = requests.post(f"{server.url}{route}", json=body, timeout=LIMIT_S)
        assert answer.status_code == 200, answer.text


def await_publishing(server: Server, step: int) -> None:
    """Waits until a training has come to a step of publishing.

    Args:
        server: Server that runs the training.
        step: 0 the folder of the version is there, 1 its weights, 2 its report, 3 its name, 4 it is served.
    """
    store = Versions(server.model_dir)
    before = store.names(), store.current()
    folder, give_up = server.model_dir / "versions", time.monotonic() + PUBLISHING_LIMIT_S
    steps: tuple[Callable[[], bool], ...] = (
        lambda: any(folder.glob(".new-*")),
        lambda: any(folder.glob(".new-*/weights.pt")),
        lambda: any(folder.glob(".new-*/report.html")),
        lambda: store.names() != before[0],
        lambda: store.current() != before[1],
    )
    # A step that is over before it is seen is followed by the later ones.
    while not any(reached() for reached in steps[step:]):
        assert time.monotonic() < give_up, server.log[-4000:]
        time.sleep(0.005)


def upload_once(server: Server) -> str:
    """Uploads weights, which are put in service; returns the name of their version."""
    weights = (server.model_dir / "biosam2_mini.pt").read_bytes()
    file = {"file": ("new.pt", weights)}
    answer = requests.put(f"{server.url}/model/biosam2_point", files=file, timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["version"])


def upload(server: Server, acknowledged: list[str]) -> None:
    """Uploads one version after the other, until the server is gone."""
    with contextlib.suppress(requests.RequestException):
        while True:
            acknowledged.append(upload_once(server))


def check_versions(store: Versions) -> int:
    """Compares the weights of every version with their record; returns how many a training made."""
    for name in store.names():
        found = hashlib.sha256(store.weights_path(name).read_bytes()).hexdigest()
        assert found == store.read(name).sha256, f"the weights of {name} are damaged"
    return sum(bool(store.read(name).options) for name in store.names())


def check_after_kill(server: Server, annotator: Annotator, before: tuple[list[str], str | None]) -> None:
    """The server has what it had, answers clicks, and left nothing unfinished."""
    annotator.check(server.url)
    store, (names, current) = Versions(server.model_dir), before
    assert set(names) <= set(store.names()), "a version is lost"
    assert (current or "") <= (store.current() or ""), "an older version is in service"
    mask = Client(server.url).infer("biosam2_point", "ct", {"foreground": [CT.click("lesion")]})
    assert mask.status == 200, mask.body[:500]
    left = [path.name for path in server.studies.parent.rglob(".*.part-*") if "tmp" not in path.parts]
    assert left == [], f"temporary files are left: {left}"


@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_whenever_the_server_is_killed(
    server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(request.config.getoption("seed"))
    annotator, store = Annotator(tmp_path), Versions(server.model_dir)
    # What follows is compared with weights of the same form and is as good, so it is accepted.
    uploaded = [upload_once(server)]
    orphans: list[psutil.Process] = []
    kinds, shares = list(KILLS), [share for share, _ in KILLS.values()]
    works = ["save", *rng.choices(kinds, shares, k=request.config.getoption("kills") - 1)]
    for number, work in enumerate(works):
        threads = [threading.Thread(target=annotator.work, args=(server.url,))]
        if work == "upload":
            threads.append(threading.Thread(target=upload, args=(server, uploaded)))
        for thread in threads:
            thread.start()
        begin(server, work)
        if work == "publish":
            await_publishing(server, rng.randrange(5))
        time.sleep(rng.uniform(0.0, KILLS[work][1]))
        before = store.names(), store.current()
        orphans += server.children()
        server.kill()
        for thread in threads:
            thread.join()
        assert "Traceback" not in server.log
        server.start()
        sys.stdout.write(f"kill {number}: {work}\n")
        check_after_kill(server, annotator, ([*before[0], *uploaded], before[1]))
    _, alive = psutil.wait_procs(orphans, CHILDREN_LIMIT_S)
    assert alive == [], "background processes of killed servers go on"
    assert "Traceback" not in server.log
    trained = check_versions(store)
    assert trained or works.count("publish") < 4, "no training has published"
    sys.stdout.write(
        f"killed while {dict(Counter(works))}, with {len(orphans)} background processes; {trained} versions "
        f"from trainings, {len(store.names()) - trained} uploaded\n"
    )
