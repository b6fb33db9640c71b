"""Several writers of one label at once, over HTTP: what a person saved is never lost."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests

from lib.datastores.local import LocalFolder
from tests.support import studies
from tests.support.client import LIMIT_S, Answer, Client, read_mask
from tests.support.server import Server
from tests.support.studies import write_nifti

CT = studies.phantom("ct")
LESION = CT.click("lesion")
TAG = "writers"
ROUNDS = 12
NAMES = [{"name": "person", "idx": 1}]


def save(server: Server, file: Path, **params: Any) -> requests.Response:
    """Saves a label as a person does."""
    return requests.put(
        f"{server.url}/datastore/label",
        params={"image": "ct", "tag": TAG},
        data={"params": json.dumps({"label_info": NAMES, **params})},
        files={"label": (file.name, file.read_bytes())},
        timeout=LIMIT_S,
    )


def stored(server: Server) -> tuple[np.ndarray, dict[str, Any]]:
    """Voxels and information of the label."""
    address, query = f"{server.url}/datastore/label", {"label": "ct", "tag": TAG}
    answer = requests.get(address, params=query, timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text
    info = requests.get(f"{address}/info", params=query, timeout=LIMIT_S)
    return read_mask(answer.content)[0], info.json()


def drawn(path: Path, step: int) -> tuple[Path, np.ndarray]:
    """A label file, another one at each step, far from the lesion."""
    array = np.zeros(CT.image.shape, np.uint8)
    array[: step + 1, :3, -1] = 1
    return write_nifti(path, array, CT.affine), array == 1


def test_answers_that_are_merged_keep_what_a_person_saves_meanwhile(scratch: Server, tmp_path: Path) -> None:
    client = Client(scratch.url)

    def click(step: int) -> Answer:
        point = [LESION[0] + step % 3, LESION[1], LESION[2]]
        params = {"label": "lesion", "foreground": [point], "save_label": True, "label_tag": TAG}
        return client.segment("biosam2_point", "ct", params)

    lost = []
    with ThreadPoolExecutor(2) as pool:
        for step in range(ROUNDS):
            file, truth = drawn(tmp_path / "label.nii.gz", step)
            clicks = [pool.submit(click, step + n) for n in range(2)]
            answer = save(scratch, file)
            assert answer.status_code == 200, answer.text
            assert [future.result().status for future in clicks] == [200, 200]
            voxels, info = stored(scratch)
            names = {item["name"]: item["idx"] for item in info["label_info"]}
            if not np.array_equal(voxels == names.get("person"), truth):
                lost.append(step)
    assert not lost


def test_a_label_replaces_the_version_that_was_loaded_alone(scratch: Server, tmp_path: Path) -> None:
    file, _ = drawn(tmp_path / "label.nii.gz", 0)
    version = save(scratch, file).json()["version"]
    assert stored(scratch)[1]["version"] == version
    # One of many who loaded it comes first, and the others are told.
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda name: save(scratch, file, replaces=version, client_id=name), "abcd"))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    (first,) = (answer for answer in answers if answer.status_code == 200)
    newest = first.json()["version"]
    reason = next(answer.json()["detail"] for answer in answers if answer.status_code == 409)
    assert f"saved by {stored(scratch)[1]['client_id']} after yours was loaded" in reason
    # Another server of the same folder saves one, in the same second or not.
    LocalFolder(str(scratch.studies)).save_label("ct", str(file), TAG, {"client_id": "neighbour"})
    refused = save(scratch, file, replaces=newest)
    assert (refused.status_code, "neighbour" in refused.text) == (409, True)
    assert save(scratch, file).status_code == 200
