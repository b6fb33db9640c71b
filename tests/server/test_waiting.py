"""Waiting beforehand, over HTTP: what the encoder had done when a click came, by the server's own count."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.support import studies
from tests.support.client import LIMIT_S, Client
from tests.support.server import Server, copy_model_folder
from tests.support.studies import write_nifti

CT = studies.phantom("ct")
SLICES = CT.image.shape[2]
MIDDLE = SLICES // 2


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server on three volumes that encodes two neighbours beforehand, and may keep embeddings on disk."""
    work = tmp_path_factory.mktemp("waiting")
    (work / "studies").mkdir()
    for number, name in enumerate(("ct", "other", "third")):
        write_nifti(work / "studies" / f"{name}.nii.gz", CT.image + number, CT.affine)
    conf = {"model_dir": str(copy_model_folder(work / "model")), "prefetch": "2", "embedding_disk_gb": "1"}
    server = Server(work / "studies", work, conf).start()
    yield server
    server.stop()


def measured(server: Server) -> dict[str, int]:
    text = requests.get(f"{server.url}/metrics", timeout=LIMIT_S).text
    return {name: int(float(value)) for name, value in re.findall(r"^biosam2_(\w+) ([\d.e+]+)$", text, re.M)}


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def click(server: Server, index: int, image: str = "ct", **more: Any) -> Mapping[str, Any]:
    i, j, _ = CT.click("lesion")
    prompt = {"foreground": [[i, j, index]]}
    answer = Client(server.url).infer("biosam2_point", image, {"zoom": "off", **prompt, **more})
    assert answer.status == 200, answer.body[:300]
    return answer.params


def test_whoever_opens_an_image_and_scrolls_never_waits_for_the_encoder(waiting: Server) -> None:
    def has_prefetched(count: int) -> bool:
        found = measured(waiting)
        return (found["prefetched"], found["prefetch_pending"]) == (count, 0)

    info = {"params": {"image": "ct"}, "timeout": LIMIT_S}
    assert requests.get(f"{waiting.url}/datastore/image/info", **info).ok
    wait_until(lambda: has_prefetched(1))
    # The middle slice was encoded, then two neighbours of it, then two in the direction of travel.
    for index, count in ((MIDDLE, 3), (MIDDLE + 1, 5), (MIDDLE + 2, 6)):
        click(waiting, index)
        wait_until(lambda count=count: has_prefetched(count))
        assert measured(waiting)["slices_encoded"] == count
    click(waiting, MIDDLE - 3)
    wait_until(lambda: has_prefetched(measured(waiting)["slices_encoded"] - 1))


def test_a_prepared_image_needs_no_encoder(waiting: Server, tmp_path: Path) -> None:
    def prepare() -> dict[str, Any]:
        query = {"run_sync": "true"}
        return requests.post(
            f"{waiting.url}/batch/infer/embed", params=query, json={}, timeout=LIMIT_S
        ).json()

    first = prepare()
    assert (first["status"], first["progress"]["done"]) == ("DONE", 3), first
    folder = Path(waiting.conf["model_dir"]) / "embeddings"
    assert len(list(folder.glob("*.npz"))) == 3 * SLICES
    again = prepare()
    assert [line for line in again["details"] if f": 0 of {SLICES} slices encoded" in line][2:]
    expected = click(waiting, MIDDLE, "other")["score"]
    waiting.stop()
    waiting.start()
    for image in ("ct", "other", "third"):
        for index in range(SLICES):
            click(waiting, index, image)
    assert measured(waiting)["slices_encoded"] == 0
    assert click(waiting, MIDDLE, "other")["score"] == pytest.approx(expected, abs=0.01)
    # Another window, and other voxels under the same name, meet nothing that was prepared.
    click(waiting, MIDDLE, window=[-1000, 1000])
    assert measured(waiting)["slices_encoded"] >= 1
    write_nifti(tmp_path / "third.nii.gz", np.flip(CT.image, 0).copy(), CT.affine).replace(
        waiting.studies / "third.nii.gz"
    )
    wait_until(lambda: measured(waiting)["prefetch_pending"] == 0)
    before = measured(waiting)["slices_encoded"]
    click(waiting, MIDDLE, "third")
    assert measured(waiting)["slices_encoded"] > before


def test_a_stopped_run_keeps_what_it_has_and_a_server_without_a_disk_refuses(
    waiting: Server, server: Server
) -> None:
    folder = Path(waiting.conf["model_dir"]) / "embeddings"
    for path in folder.iterdir():
        path.unlink()
    requests.post(f"{waiting.url}/batch/infer/embed", json={}, timeout=LIMIT_S)
    wait_until(lambda: len(list(folder.glob("*.npz"))) > 1)
    requests.delete(f"{waiting.url}/batch/infer", timeout=LIMIT_S)
    ask = f"{waiting.url}/batch/infer"
    wait_until(lambda: requests.get(ask, timeout=LIMIT_S).json()["status"] != "RUNNING")
    assert requests.get(ask, timeout=LIMIT_S).json()["status"] in ("STOPPED", "DONE")
    assert len(list(folder.glob("*.npz"))) > 1
    refused = requests.post(f"{server.url}/batch/infer/embed", json={}, timeout=LIMIT_S)
    assert (refused.status_code, "--conf embedding_disk_gb" in refused.json()["detail"]) == (400, True)
