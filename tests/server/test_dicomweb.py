"""The server on a DICOMweb store, asked as OHIF was recorded asking, and what is in the store afterwards."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests

from lib.images.reading import read_image
from lib.labels.dicom_seg_writing import describe_segments, write_dicom_seg
from sample_study.dicom import Series, write_multiframe_ultrasound, write_series
from sample_study.orthanc import Orthanc
from tests.support import phantoms
from tests.support.client import LIMIT_S, OHIF, read_mask
from tests.support.datastore import require_ranges_and_tags
from tests.support.dicom_site import Site
from tests.support.pacs import KINDS, in_world, open_pacs, stored_segmentations
from tests.support.phantoms import FROM_CLICK, THROUGH_VOLUME, dice
from tests.support.server import Server, copy_model_folder

CT, MR = phantoms.ct(), phantoms.mr()
LESION, ORGAN, BODY = CT.click("lesion"), CT.click("organ"), [48, 40, CT.click("lesion")[2]]
FRAMES = 6
WINDOW = (40, 400)
# PS3.3 C.11.2.1.2: 40 - 0.5 - 399 / 2 and 40 - 0.5 + 399 / 2.
LEVELS = [-160.0, 239.0]
SHORT = {"preset": "decoder", "image_size": 64, "max_epochs": 1, "steps_per_epoch": 2, "batch_size": 2}
SHORT |= {"val_objects": 1}


def write_all(folder: Path) -> dict[str, Series]:
    """CT upwards, MR oblique and downwards, a cine loop, and a CT with a gap."""
    rng = np.random.default_rng(0)
    loop = rng.integers(0, 40, (FRAMES, 64, 80, 3), dtype=np.uint8)
    loop[:, 12:36, 44:70] += 150
    series = {
        "ct": write_series(folder / "ct", CT.image, CT.affine, window=WINDOW),
        "mr": write_series(
            folder / "mr", MR.image.astype(np.int16), MR.affine, modality="MR", instances="descending"
        ),
        "us": write_multiframe_ultrasound(folder / "us", loop),
        "gap": write_series(folder / "gap", CT.image[:, :, :9], CT.affine),
    }
    series["gap"].files[4].unlink()
    return series


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("dicomweb")
    series = write_all(folder / "series")
    store = open_pacs(request.param, folder / "pacs")
    store.store(folder / "series")
    conf = {"model_dir": str(copy_model_folder(folder / "model")), "labels": "lesion,organ"}
    server = Server(store.dicomweb_url, folder, conf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(folder / "cache"))
        server.start()
    yield Site(store, server, series, folder)
    server.stop()
    store.stop()


def labels_of(phantom: phantoms.Phantom) -> np.ndarray:
    return sum(value * mask.astype(np.uint8) for value, mask in enumerate(phantom.objects.values(), 1))


def test_01_every_modality_is_offered(site: Site) -> None:
    assert site.client.info()["datastore"] == {"total": 4, "completed": 0, "label_tags": {}}
    objects = site.get("/datastore/", output="all").json()["objects"]
    found = {uid: item["image"]["info"]["Modality"] for uid, item in objects.items()}
    assert found == {site.uid("ct"): "CT", site.uid("mr"): "MR", site.uid("us"): "US", site.uid("gap"): "CT"}


def test_01b_a_note_on_a_series_that_nobody_has_opened(site: Site) -> None:
    address, query = f"{site.server.url}/datastore/image/info", {"image": site.uid("ct")}
    answer = requests.put(address, params=query, data={"info": '{"note": "first"}'}, timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text
    info = site.get("/datastore/image/info", **query).json()
    assert (info["note"], info["Modality"]) == ("first", "CT")
    query["image"] = "1.2.3"
    answer = requests.put(address, params=query, data={"info": "{}"}, timeout=LIMIT_S)
    assert (answer.status_code, "no image" in answer.json()["detail"]) == (404, True)


def test_02_a_click_of_ohif_on_a_series(site: Site) -> None:
    answer = site.infer("biosam2_point", "ct", {"foreground": [LESION], "background": [BODY]})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/octet-stream"
    assert dice(answer.mask[:, :, LESION[2]], CT.objects["lesion"][:, :, LESION[2]]) > FROM_CLICK
    whole = site.client.segment("biosam2_point", site.uid("ct"), {"foreground": [LESION]})
    assert whole.params["window"] == LEVELS


def test_03_several_labels_and_a_volume(site: Site) -> None:
    found = site.infer("biosam2_multi", "ct", {"background": [BODY], "lesion": [LESION], "organ": [ORGAN]})
    assert dice(found.mask == 1, CT.objects["lesion"]) > THROUGH_VOLUME
    assert dice(found.mask == 2, CT.objects["organ"]) > THROUGH_VOLUME
    vista = {"points": [LESION, BODY], "point_labels": [1, 0], "label_prompt": [1]}
    assert dice(site.infer("biosam2_propagate", "ct", vista).mask, CT.objects["lesion"]) > THROUGH_VOLUME
    # What OHIF sends from its tabs for classes and for automatic models holds no prompt.
    for prompts in ({"label_prompt": [2]}, {}):
        assert site.infer("biosam2_point", "ct", prompts).status == 400


def test_03b_a_series_is_downloaded_in_parts_and_not_twice(site: Site) -> None:
    require_ranges_and_tags(f"{site.server.url}/datastore/image", {"image": site.uid("ct")})


def test_04_an_oblique_series_whose_instance_numbers_fall(site: Site) -> None:
    i, j, k = MR.click("tumour")
    mask = site.infer("biosam2_point", "mr", {"foreground": [[i, j, k]]}).mask
    assert mask.shape == MR.image.shape
    assert dice(mask[:, :, k], MR.objects["tumour"][:, :, k]) > FROM_CLICK


def test_05_a_cine_loop_is_a_video(site: Site) -> None:
    mask = site.infer("biosam2_propagate", "us", {"foreground": [[57, 24, 2]]}).mask
    assert mask.shape == (80, 64, FRAMES)
    truth = np.zeros((80, 64), bool)
    truth[44:70, 12:36] = True
    assert all(dice(mask[:, :, frame], truth) > THROUGH_VOLUME for frame in range(FRAMES))


def test_05b_an_answer_as_segmentation(site: Site) -> None:
    params = {"foreground": [LESION], "label_info": [{"name": "lesion", "idx": 1, "color": [0, 255, 0]}]}
    answer = site.client.infer("biosam2_point", site.uid("ct"), params, query={"output": "dicom_seg"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/dicom"), answer.body
    dataset = pydicom.dcmread(io.BytesIO(answer.body))
    assert dataset.SegmentSequence[0].SegmentLabel == "lesion"
    mask = site.infer("biosam2_point", "ct", {"foreground": [LESION]}).mask
    np.testing.assert_array_equal(in_world(dataset, CT.affine, CT.image.shape), mask)


def test_06_what_cannot_be_segmented_is_refused_in_words(site: Site) -> None:
    answer = site.infer("biosam2_point", "gap", {"foreground": [[40, 40, 3]]})
    assert (answer.status, "1 of its slices are missing: between slice 4 and 5 of 8" in answer.detail) == (
        422,
        True,
    )
    for uid in ("undefined", "1.2.3", "../ct"):
        answer = site.client.infer("biosam2_point", uid, {"foreground": [[1, 1, 1]]})
        assert (answer.status, "no image" in answer.detail) == (404, True)
    assert site.put_label(site.uid("ct"), b"\1\2\3", "label.bin", {}).status_code in (400, 422)
    for said in ({"label_info": [{"name": ["lesion"], "idx": 1}]}, {"label_info": [{"name": 1}]}):
        for params in (said, {"params": said}):
            answer = site.put_label(site.uid("ct"), labels_of(CT).tobytes(order="F"), "label.bin", params)
            assert (answer.status_code, "text" in answer.json()["detail"]) == (400, True)
    assert stored_segmentations(site.store, site.series["ct"].study_uid) == []
    labels = MR.objects["tumour"].astype(np.uint8)
    image = read_image(site.folder / "series" / "mr", MR.image.size)
    path = site.folder / "of_mr.dcm"
    write_dicom_seg(path, labels, image, site.series["mr"].files, describe_segments({1: "tumour"}))
    answer = site.put_label(site.uid("ct"), path.read_bytes(), "label.dcm", {})
    assert (answer.status_code, "belongs to another series" in answer.json()["detail"]) == (422, True)
    assert site.client.info()["datastore"]["completed"] == 0


def test_07_ohif_lists_and_downloads_through_the_server(site: Site) -> None:
    filters = {"limit": 101, "offset": 0, "fuzzymatching": "true", "includefield": "00081030,00080060"}
    assert len(site.get("/proxy/dicom/qido/studies", **filters).json()) == 4
    assert site.get("/proxy/dicom/qido/studies", **filters, PatientID="nobody").json() == []
    study = f"/proxy/dicom/wado/studies/{site.series['ct'].study_uid}"
    metadata = site.get(f"{study}/metadata").json()
    assert len(metadata) == CT.image.shape[2]
    instance = metadata[0]["00080018"]["Value"][0]
    frame = site.get(f"{study}/series/{site.uid('ct')}/instances/{instance}/frames/1")
    assert frame.status_code == 200
    assert len(frame.content) > CT.image[:, :, 0].size * 2
    assert site.get("/proxy/dicom/wado/studies/1.2.3/metadata").status_code in (200, 404)
    assert site.get("/proxy/dicom/wado/%2e%2e/%2e%2e/system").status_code == 400


def test_08_a_label_becomes_a_segmentation_in_the_store(site: Site) -> None:
    info = [{"name": "lesion", "idx": 1, "color": [255, 0, 0]}, {"name": "organ", "idx": 2}]
    truth = labels_of(CT)
    answer = site.put_label(site.uid("ct"), truth.tobytes(order="F"), "label.bin", {"label_info": info})
    assert answer.status_code == 200, answer.text
    # Nobody waits two hours for it.
    assert site.client.info()["datastore"]["completed"] == 1
    offered = {
        requests.post(f"{site.server.url}/activelearning/random", json={}, timeout=LIMIT_S).json()["id"]
        for _ in range(6)
    }
    assert offered == {site.uid(name) for name in ("mr", "us", "gap")}
    found = stored_segmentations(site.store, site.series["ct"].study_uid)
    assert len(found) == 1
    segmentation = hd.seg.Segmentation.from_dataset(found[0])
    assert segmentation.segmentation_type.value == "BINARY"
    assert [item.segment_label for item in segmentation.SegmentSequence] == ["lesion", "organ"]
    np.testing.assert_array_equal(in_world(found[0], CT.affine, CT.image.shape), truth)


def test_09_the_label_comes_back(site: Site) -> None:
    query = {"label": site.uid("ct"), "tag": "final"}
    answer = site.get("/datastore/label", **query)
    assert answer.status_code == 200
    array, header = read_mask(answer.content)
    np.testing.assert_array_equal(array, labels_of(CT))
    np.testing.assert_allclose(header.affine, CT.affine, atol=1e-4)
    names = {
        item["name"]: item["idx"] for item in site.get("/datastore/label/info", **query).json()["label_info"]
    }
    assert names == {"lesion": 1, "organ": 2}
    assert site.get("/datastore/label", label=site.uid("mr"), tag="final").status_code == 404


def test_10_what_ohif_stores_is_a_label_at_once(site: Site, tmp_path: Path) -> None:
    """Its own segment number, empty slices left out, sent by way of the server."""
    image = read_image(site.folder / "series" / "mr", MR.image.size)
    truth = MR.objects["tumour"].astype(np.uint8)
    write_dicom_seg(
        tmp_path / "seg.dcm", truth, image, site.series["mr"].files, describe_segments({1: "tumour"})
    )
    boundary = "dicomwebclient"
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = head + (tmp_path / "seg.dcm").read_bytes() + f"\r\n--{boundary}--".encode()
    answer = requests.post(
        f"{site.server.url}/proxy/dicom/wado/studies",
        body,
        headers={"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'},
        timeout=LIMIT_S,
    )
    assert answer.status_code == 200, answer.text
    assert site.client.info()["datastore"]["completed"] == 2
    listed = site.get("/datastore/", output="train").json()
    labels = {Path(item["label"]).name.removesuffix(".nii.gz"): item["label"] for item in listed}
    assert set(labels) == {site.uid("ct"), site.uid("mr")}
    np.testing.assert_array_equal(np.asarray(nib.load(labels[site.uid("mr")]).dataobj), truth)


def test_10b_a_batch_segments_the_series_and_goes_on_where_it_ended(site: Site) -> None:
    address, asked = (
        f"{site.server.url}/batch/infer/biosam2_point",
        {"foreground": [LESION], "label_tag": "auto"},
    )
    before = stored_segmentations(site.store, site.series["ct"].study_uid)
    first, second = (
        requests.post(address, params={"run_sync": "true"}, json=asked, timeout=LIMIT_S).json()
        for _ in range(2)
    )
    # The series with a gap is refused, and the lesion's point lies outside some of the others.
    assert first["progress"]["total"] == len(site.series)
    assert first["progress"]["failed"] == second["progress"]["failed"] < len(site.series)
    assert second["progress"]["skipped"] == first["progress"]["done"] >= 1
    assert any(site.uid("gap") in line for line in first["details"])
    query = {"label": site.uid("ct"), "tag": "auto"}
    mask = read_mask(site.get("/datastore/label", **query).content)[0]
    assert dice(mask[:, :, LESION[2]] > 0, CT.objects["lesion"][:, :, LESION[2]]) > FROM_CLICK
    assert site.get("/datastore/label/info", **query).json()["automatic"] is True
    # What a model made stays here; the store has what people drew.
    assert len(stored_segmentations(site.store, site.series["ct"].study_uid)) == len(before)


def test_11_a_training_learns_from_the_store_by_name(site: Site) -> None:
    if isinstance(site.store, Orthanc):
        pytest.skip("the cases come from the same files as those of the stand-in, which trained")
    answer = requests.post(f"{site.server.url}/train/biosam2", json=SHORT, timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] in ("SUBMITTED", "RUNNING")
    status = "RUNNING"
    while status in ("SUBMITTED", "RUNNING"):
        time.sleep(0.3)
        task = site.get("/train/").json()
        status = task["status"]
    assert status == "DONE", task
    stats = site.client.info()["train_stats"]["biosam2"]
    assert (stats["images"], stats["left_out"]) == ({"train": 1, "val": 1}, [])


def test_12_real_series_and_what_somebody_drew_on_one(site: Site) -> None:
    data = Path(os.environ.get("BIOSAM2_DATA", "")) / "dicom"
    if not (data / "echo_a4c.dcm").is_file():
        pytest.skip("the real images are not here; BIOSAM2_DATA names their folder")
    site.store.store(data)
    # What nobody told the server of is there within seconds.
    give_up = time.monotonic() + 60
    while site.client.info()["datastore"]["total"] < 6 and time.monotonic() < give_up:
        time.sleep(0.2)
    source = pydicom.dcmread(data / "dcmqi_ct" / "01.dcm", stop_before_pixels=True)
    echo = pydicom.dcmread(data / "echo_a4c.dcm", stop_before_pixels=True)
    uid = str(source.SeriesInstanceUID)
    label = site.get("/datastore/label", label=uid, tag="final")
    drawn = pydicom.dcmread(data / "dcmqi_liver_seg.dcm").pixel_array
    assert int(np.count_nonzero(read_mask(label.content)[0])) == int(np.count_nonzero(drawn))
    info = site.get("/datastore/label/info", label=uid, tag="final").json()["label_info"]
    assert [item["name"] for item in info] == ["Liver"]
    mask = site.client.segment("biosam2_point", uid, {"foreground": [[150, 250, 1]], **OHIF}).mask
    assert mask.shape == (512, 512, 3)
    prompts = {"foreground": [[160, 120, 3]], **OHIF}
    loop = site.client.segment("biosam2_point", str(echo.SeriesInstanceUID), prompts)
    assert loop.mask.shape == (320, 240, 30)
    assert loop.mask[:, :, 3].any()
