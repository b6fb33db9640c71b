"""``biosam2_auto``: label one image, segment the next without a prompt; batch, restart, next sample."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from sample_study.dicom import write_series
from tests.support import phantoms, studies
from tests.support.client import LIMIT_S, Answer, Client, read_mask
from tests.support.pacs import KINDS, open_pacs
from tests.support.server import Server, copy_model_folder

VOLUMES = ("ct_a", "ct_b", "ct_c", "ct_d")
PICTURES = ("cell_a", "cell_b", "cell_c")
CLASSES = ("lesion", "organ")


def _ct(number: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """The CT phantom, moved within slices and along them, with its noise."""
    phantom = phantoms.ct()
    moved = (3 * number, -2 * number, number)
    masks = {name: np.roll(mask, moved, (0, 1, 2)) for name, mask in phantom.objects.items()}
    return np.roll(phantom.image, moved, (0, 1, 2)), masks, phantom.affine


def _submit(
    url: str, image: str, masks: dict[str, np.ndarray], folder: Path, affine: np.ndarray | None = None
) -> None:
    """PUT /datastore/label, as 3D Slicer sends it."""
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for value, mask in enumerate(masks.values(), start=1):
        labels[mask] = value
    info = [{"name": name, "idx": value} for value, name in enumerate(masks, start=1)]
    placed = np.eye(4) if image in PICTURES else _ct(0)[2] if affine is None else affine
    path = studies.write_nifti(folder / "label.nii.gz", labels, placed)
    answer = requests.put(
        f"{url}/datastore/label",
        params={"image": image},
        files={"label": ("label.nii.gz", path.read_bytes())},
        data={"params": json.dumps({"label_info": info})},
        timeout=LIMIT_S,
    )
    assert answer.ok, answer.text


def _labels(url: str) -> dict[str, dict[str, Any]]:
    """Infos of the labels of every image, by tag."""
    listed = requests.get(f"{url}/datastore/", params={"output": "all"}, timeout=LIMIT_S).json()
    return {
        image: {tag: label["info"] for tag, label in item["labels"].items()}
        for image, item in listed["objects"].items()
    }


def _stored(url: str, image: str, tag: str) -> bytes:
    answer = requests.get(f"{url}/datastore/label", params={"label": image, "tag": tag}, timeout=LIMIT_S)
    assert answer.ok, answer.text
    return answer.content


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on three volumes and three pictures of its own, without labels."""
    work = tmp_path_factory.mktemp("automatic")
    (work / "studies").mkdir()
    for number, name in enumerate(VOLUMES):
        array, _, affine = _ct(number)
        studies.write_nifti(work / "studies" / f"{name}.nii.gz", array, affine)
    for number, name in enumerate(PICTURES):
        picture = phantoms.grey_picture(seed=number + 4)
        studies.write_picture(work / "studies" / f"{name}.png", picture.image)
    colour = phantoms.colour_picture()
    studies.write_picture(work / "studies" / "colour.png", colour.image)
    model = copy_model_folder(work / "model")
    server = Server(work / "studies", work, {"labels": "lesion,organ", "model_dir": str(model)})
    yield server.start()
    server.stop()


def test_one_labelled_image_segments_the_next_without_a_prompt(auto: Server, tmp_path: Path) -> None:
    client = Client(auto.url)
    refused = client.infer("biosam2_auto", "ct_b")
    assert (refused.status, "segment and submit one" in refused.detail) == (400, True)

    _submit(auto.url, "ct_a", _ct(0)[1], tmp_path)
    model = client.info()["models"]["biosam2_auto"]
    assert (model["type"], model["labels"]) == ("segmentation", {"lesion": 1, "organ": 2})

    answer = client.segment("biosam2_auto", "ct_b")
    assert answer.params["label_names"] == {"lesion": 1, "organ": 2}
    for value, name in enumerate(CLASSES, start=1):
        assert phantoms.dice(answer.mask == value, _ct(1)[1][name]) > 0.7
        assert 0 < answer.params["scores"][name] <= 1
    # OHIF takes the mask alone, and numbers it by the labels of /info/.
    assert np.array_equal(client.ohif("biosam2_auto", "ct_b", {}).mask, answer.mask)
    only = client.segment("biosam2_auto", "ct_b", {"labels": ["organ"]})
    assert set(np.unique(only.mask)) == {0, 2}
    for wrong in (["spleen"], "organ", [["organ"]], {"organ": 1}):
        refused = client.infer("biosam2_auto", "ct_b", {"labels": wrong})
        assert (refused.status, "lesion, organ" in refused.detail) == (400, True)


def test_pictures_are_segmented_too_and_no_image_from_itself(auto: Server, tmp_path: Path) -> None:
    client, cell = Client(auto.url), phantoms.grey_picture().objects["cell"]
    _submit(auto.url, "cell_a", {"cell": cell}, tmp_path)
    answer = client.segment("biosam2_auto", "cell_b", {"labels": ["cell"]})
    assert phantoms.dice(answer.mask, cell) > 0.8
    assert answer.params["ways"] == {"cell": "one_prompt"}
    refused = client.infer("biosam2_auto", "cell_a", {"labels": ["cell"]})
    assert (refused.status, "on another image" in refused.detail) == (400, True)
    assert client.segment("biosam2_auto", "colour").mask.shape == (120, 88, 1)


def test_qupath_gets_polygons_in_its_region(auto: Server, tmp_path: Path) -> None:
    client, cell = Client(auto.url), phantoms.grey_picture().objects["cell"]
    _submit(auto.url, "cell_a", {"cell": cell}, tmp_path)
    region = {"level": 0, "location": [40, 0], "size": [64, 60], "tile_size": [1024, 1024], "params": {}}
    found = _outlines(client.slide("biosam2_auto", "cell_b", region))
    drawn = Image.new("1", (104, 72))
    for name, corners in found:
        ImageDraw.Draw(drawn).polygon(corners, fill=int(name == "cell"))
    truth = cell[:, :, 0].T.copy()
    truth[60:] = truth[:, :40] = False
    assert phantoms.dice(np.asarray(drawn), truth) > 0.8
    # A picture that is not on the server is sent along.
    picture = studies.write_picture(tmp_path / "patch.png", phantoms.grey_picture(seed=9).image)
    wsi = {**region, "location": [0, 0], "size": [0, 0]}
    sent = _outlines(client.slide_upload("biosam2_auto", picture, wsi))
    assert "cell" in {name for name, _ in sent}


def _outlines(answer: Answer) -> list[tuple[str, list[tuple[float, float]]]]:
    """Class and corners of each outline in an ASAP file."""
    assert answer.status == 200, answer.body
    return [
        (
            item.get("Name", ""),
            [(float(c.get("X", 0)), float(c.get("Y", 0))) for c in item.iter("Coordinate")],
        )
        for item in ElementTree.fromstring(answer.body).iter("Annotation")
    ]


def test_a_batch_is_resumed_after_a_restart_and_leaves_labels_of_people(auto: Server, tmp_path: Path) -> None:
    _submit(auto.url, "ct_a", _ct(0)[1], tmp_path)
    before = _stored(auto.url, "ct_a", "final")
    wanted = {"labels": CLASSES}  # those of the pictures above are no part of a CT
    start = {"url": f"{auto.url}/batch/infer/biosam2_auto", "timeout": LIMIT_S}
    first = requests.post(
        **start, params={"images": "unlabeled", "run_sync": True}, json={"max_batch_size": 2, **wanted}
    ).json()
    assert (first["status"], first["progress"]["done"]) == ("DONE", 2)
    auto.stop()
    auto.start()
    run = requests.post(**start, params={"images": "unlabeled"}, json=wanted).json()
    stopped = requests.delete(f"{auto.url}/batch/infer", timeout=LIMIT_S).json()
    while run["status"] == "RUNNING":
        time.sleep(0.2)
        run = requests.get(f"{auto.url}/batch/infer", timeout=LIMIT_S).json()
    assert (stopped["id"], run["status"] in ("STOPPED", "DONE")) == (run["id"], True)
    last = requests.post(**start, params={"images": "unlabeled", "run_sync": True}, json=wanted).json()
    assert last["status"] == "DONE"
    assert last["progress"]["skipped"] >= 2
    labels = _labels(auto.url)
    people = {image for image, tags in labels.items() if "final" in tags}
    assert {image for image, tags in labels.items() if "auto" in tags} == set(labels) - people
    assert _stored(auto.url, "ct_a", "final") == before
    info = labels["ct_b"]["auto"]
    assert (info["automatic"], info["model"], set(info["params"]["scores"]) >= set(CLASSES)) == (
        True,
        "biosam2_auto",
        True,
    )
    saved = read_mask(_stored(auto.url, "ct_b", "auto"))[0]
    assert phantoms.dice(saved == 1, _ct(1)[1]["lesion"]) > 0.7

    # The image whose pre-label is least sure comes next.
    scores = {image: tags["auto"]["params"]["score"] for image, tags in labels.items() if "auto" in tags}
    sample = requests.post(
        f"{auto.url}/activelearning/least_confident", json={"client_id": "anna"}, timeout=LIMIT_S
    ).json()
    assert scores[sample["id"]] == min(scores.values())


def test_a_trained_head_takes_the_labels_that_it_is_better_at(auto: Server, tmp_path: Path) -> None:
    for number, name in enumerate(VOLUMES[:3]):
        _submit(auto.url, name, _ct(number)[1], tmp_path)
    options = {"preset": "auto_head", "max_epochs": 2, "steps_per_epoch": 12, "batch_size": 4}
    answer = requests.post(f"{auto.url}/train/biosam2", json=options, timeout=LIMIT_S)
    assert answer.ok, answer.text
    while requests.get(f"{auto.url}/train/", timeout=LIMIT_S).json()["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(0.5)
    listed = requests.get(f"{auto.url}/model/info/biosam2", timeout=LIMIT_S).json()
    stats = listed["train_stats"]
    assert stats["status"] in ("published", "kept"), stats
    ways = next(iter(listed["versions"].values()))["ways"] if stats["published"] else {}
    answer = Client(auto.url).segment("biosam2_auto", "ct_d", {"labels": list(CLASSES)})
    for value, name in enumerate(CLASSES, start=1):
        is_better = name in ways and ways[name]["auto_head"] > ways[name]["one_prompt"]
        assert answer.params["ways"][name] == ("auto_head" if is_better else "one_prompt")
        assert phantoms.dice(answer.mask == value, _ct(3)[1][name]) > 0.6


def test_a_dicom_store_is_pre_labelled_from_one_segmentation(tmp_path: Path) -> None:
    series = {}
    for number in (0, 2):
        array, _, affine = _ct(number)
        series[number] = write_series(tmp_path / "series" / str(number), array, affine)
    store = open_pacs(KINDS[0], tmp_path / "pacs")
    store.store(tmp_path / "series")
    conf = {"labels": "lesion,organ", "model_dir": str(copy_model_folder(tmp_path / "model"))}
    env = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache")}
    server = Server(store.dicomweb_url, tmp_path, conf, env=env)
    try:
        server.start()
        labelled, other = (series[number].series_uid for number in (0, 2))
        _submit(server.url, labelled, _ct(0)[1], tmp_path, _ct(0)[2])
        answer = Client(server.url).ohif("biosam2_auto", other, {})
        for value, name in enumerate(CLASSES, start=1):
            assert phantoms.dice(answer.mask == value, _ct(2)[1][name]) > 0.7
        run = requests.post(
            f"{server.url}/batch/infer/biosam2_auto",
            params={"images": "unlabeled", "run_sync": True},
            json={},
            timeout=LIMIT_S,
        ).json()
        assert (run["status"], run["progress"]["done"], run["progress"]["failed"]) == ("DONE", 1, 0), run
        tags = {image: set(labels) for image, labels in _labels(server.url).items()}
        assert (tags[other], "auto" in tags[labelled]) == ({"auto"}, False)
    finally:
        server.stop()
        store.stop()
