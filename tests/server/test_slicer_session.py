"""A day in 3D Slicer beside the clicks: next sample, sessions, images and labels to and fro, training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from tests.support import studies
from tests.support.client import LIMIT_S, read_nrrd
from tests.support.phantoms import FROM_CLICK, dice
from tests.support.server import Server
from tests.support.slicer import EXTRA, slicer_client
from tests.support.studies import write_nifti, write_nrrd

CT = studies.phantom("ct")
LESION = CT.click("lesion")
TRAINER = "biosam2"
# The class leaves uploaded files open, which Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def slicer(scratch: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MONAILabelClient:
    assert scratch.alive, scratch.log[-4000:]
    return slicer_client(scratch.url, tmp_path, monkeypatch)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return write_nifti(tmp_path / "volume.nii.gz", CT.image, CT.affine)


def _click(slicer: MONAILabelClient, image: str, **others: Any) -> np.ndarray:
    prompts = {**EXTRA, "label": "lesion", "foreground": [LESION], "background": [], "slice": LESION[2]}
    path, _ = slicer.infer("biosam2_point", image, prompts, **others)
    return read_nrrd(Path(path).read_bytes())[0]


def _is_lesion(mask: np.ndarray) -> bool:
    return dice(mask[:, :, LESION[2]], CT.objects["lesion"][:, :, LESION[2]]) > FROM_CLICK


def test_connecting_asks_whether_to_log_in_and_what_there_is(slicer: MONAILabelClient) -> None:
    assert slicer.auth_enabled() is False
    info = slicer.info()
    assert {"name", "labels", "models", "trainers", "strategies", "datastore"} <= info.keys()
    assert "config" not in info


def test_the_next_sample_can_be_fetched(slicer: MONAILabelClient, scratch: Server) -> None:
    # The extension hands on the whole row of its table, and takes the file where it can open the path itself.
    sample = slicer.next_sample("first", {"description": "x", "strategy": "first"})
    assert Path(sample["path"]).exists()
    assert sample["id"] in slicer.datastore()["objects"]
    address = f"{slicer.get_server_url()}/datastore/image"
    answer = requests.get(address, params={"image": sample["id"]}, timeout=LIMIT_S)
    assert answer.content == Path(sample["path"]).read_bytes()
    assert Path(sample["path"]).parent == scratch.studies.resolve()


def test_a_session_comes_and_goes(slicer: MONAILabelClient, volume: Path) -> None:
    made = slicer.create_session(str(volume))
    session = made["session_id"]
    assert slicer.get_session(session)["name"] == session == made["session_info"]["name"]
    assert _is_lesion(_click(slicer, "", session_id=session))
    assert slicer.remove_session(session)
    for call in (slicer.get_session, slicer.remove_session):
        with pytest.raises(MONAILabelClientException) as caught:
            call(session)
        assert caught.value.status_code == 404
    with pytest.raises(MONAILabelClientException) as refused:
        _click(slicer, "", session_id=session)
    assert "expired" in refused.value.msg


def test_a_volume_that_only_slicer_has_is_uploaded(slicer: MONAILabelClient, volume: Path) -> None:
    assert slicer.upload_image(str(volume), "from slicer") == {"image": "from slicer"}
    assert _is_lesion(_click(slicer, "from slicer"))
    assert "from slicer" in slicer.datastore()["objects"]


def test_a_bad_volume_is_refused_with_a_reason(slicer: MONAILabelClient, tmp_path: Path) -> None:
    file = tmp_path / "volume.nii.gz"
    file.write_bytes(b"no image")
    with pytest.raises(MONAILabelClientException) as caught:
        slicer.upload_image(str(file), "bad")
    assert "Status: 422" in caught.value.msg
    assert "bad" not in slicer.datastore()["objects"]


def test_the_first_answer_is_found_again_as_the_initial_label(slicer: MONAILabelClient, volume: Path) -> None:
    slicer.upload_image(str(volume), "initial")
    mask = _click(slicer, "initial")
    prompts = {"foreground": [LESION], "label": "lesion", "save_label": True, "result_extension": ".nrrd"}
    slicer.infer("biosam2_point", "initial", prompts)
    kept = slicer.datastore()["objects"]["initial"]["labels"]["original"]
    assert kept["info"]["params"]["label_names"] == {"lesion": 1}
    path = slicer.download_label("initial", "original")
    label = sitk.GetArrayFromImage(sitk.ReadImage(path)).T
    np.testing.assert_array_equal(label > 0, mask > 0)


@pytest.mark.parametrize("suffix", [".nii.gz", ".seg.nrrd"])
def test_a_label_is_submitted_and_read_again(
    slicer: MONAILabelClient, volume: Path, tmp_path: Path, suffix: str
) -> None:
    image = f"submitted{suffix.replace('.', ' ')}"
    slicer.upload_image(str(volume), image)
    truth = (CT.objects["lesion"] + 2 * CT.objects["organ"]).astype(np.uint8)
    write = write_nifti if suffix == ".nii.gz" else write_nrrd
    file = write(tmp_path / f"label{suffix}", truth, CT.affine)
    # The extension counts segments that it does not export: idx is no value of the file.
    info = [{"name": "lesion", "idx": 2}, {"name": "organ", "idx": 4}]
    saved = slicer.save_label(image, str(file), params={"label_info": info, "model": "biosam2_point"})
    assert saved == {"image": image, "label": image, "version": ANY}
    kept = slicer.datastore()["objects"][image]["labels"]["final"]["info"]
    assert kept["label_info"] == info
    assert kept["client_id"] == "user-xyz"
    found = sitk.ReadImage(slicer.download_label(image, "final"))
    original = sitk.ReadImage(str(file))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(original))
    assert found.GetOrigin() == original.GetOrigin()
    assert found.GetDirection() == original.GetDirection()


def test_a_label_of_another_volume_is_refused_with_a_reason(
    slicer: MONAILabelClient, volume: Path, tmp_path: Path
) -> None:
    slicer.upload_image(str(volume), "untouched")
    away = CT.affine.copy()
    away[:3, 3] += 3000
    file = write_nifti(tmp_path / "label.nii.gz", CT.objects["lesion"].astype(np.uint8), away)
    with pytest.raises(MONAILabelClientException) as caught:
        slicer.save_label("untouched", str(file), params={"label_info": [{"name": "lesion", "idx": 1}]})
    assert "Status: 422" in caught.value.msg
    assert "mm apart" in caught.value.msg
    assert slicer.datastore()["objects"]["untouched"]["labels"] == {}


def test_what_is_not_there_is_a_404(slicer: MONAILabelClient, volume: Path) -> None:
    for call in (
        lambda: slicer.download_label("nobody", "final"),
        lambda: slicer.save_label("nobody", str(volume)),
        lambda: slicer.infer("biosam2_point", "nobody", {"foreground": [LESION]}),
        lambda: slicer.infer("nobody", "ct", {"foreground": [LESION]}),
    ):
        with pytest.raises(MONAILabelClientException) as caught:
            call()
        assert "Status: 404" in caught.value.msg
        assert "nobody" in caught.value.msg


def test_a_training_starts_is_watched_and_stopped(
    slicer: MONAILabelClient, volume: Path, tmp_path: Path
) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", CT.objects["lesion"].astype(np.uint8), CT.affine)
    for name in ("learned a", "learned b"):
        slicer.upload_image(str(volume), name)
        slicer.save_label(name, str(file), params={"label_info": [{"name": "lesion", "idx": 1}]})
    assert slicer.train_status(check_if_running=True) is False
    started = slicer.train_start(TRAINER, {"max_epochs": 1000, "preset": "decoder", "image_size": 64})
    assert started["status"] in ("SUBMITTED", "RUNNING")
    try:
        while slicer.train_status()["status"] == "SUBMITTED":
            time.sleep(0.1)
        assert slicer.train_status(check_if_running=True) is True
        # People go on meanwhile.
        assert _is_lesion(_click(slicer, "ct"))
    finally:
        slicer.train_stop()
    while slicer.train_status(check_if_running=True):
        time.sleep(0.1)
    assert slicer.train_status()["status"] == "STOPPED"


def test_a_picture_is_asked_about_as_a_slide(slicer: MONAILabelClient) -> None:
    x, y, _ = studies.phantom("colour").click("nucleus")
    body = {"level": 0, "location": [0, 0], "size": [0, 0], "params": {"foreground": [[x, y]]}}
    _, answer = slicer.wsi_infer("biosam2_pathology", "colour", body, output="asap")
    assert b"<Coordinate " in answer
