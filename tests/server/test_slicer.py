"""3D Slicer, through the client class that its extension uses."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from tests.support import studies
from tests.support.client import Client, read_nrrd
from tests.support.phantoms import FROM_BOX, FROM_CLICK, THROUGH_VOLUME, dice
from tests.support.slicer import EXTRA, config_of, slicer_client

CT = studies.phantom("ct")
LESION = CT.click("lesion")
K = LESION[2]


@pytest.fixture
def slicer(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MONAILabelClient:
    return slicer_client(client.url, tmp_path, monkeypatch)


def _infer(
    slicer: MONAILabelClient, model: str, image: str, params: dict[str, Any], **others: Any
) -> tuple[np.ndarray, dict[str, Any]]:
    path, answer = slicer.infer(model, image, {**EXTRA, **params}, **others)
    return read_nrrd(Path(path).read_bytes())[0], answer


def _roi(roi: list[int]) -> list[int]:
    """Pairs as Slicer has them on an LPS volume: from the RAS-lowest corner, so i and j run downwards."""
    i0, i1, j0, j1, k0, k1 = roi
    return [i1, i0, j1, j0, k0, k1]


def test_a_click_in_2d_with_the_whole_config(slicer: MONAILabelClient) -> None:
    params = {**config_of(slicer, "biosam2_point"), "label": "lesion", "slice": K}
    params |= {"foreground": [LESION], "background": []}
    mask, answer = _infer(slicer, "biosam2_point", "ct", params)
    assert mask.shape == CT.image.shape
    assert set(np.nonzero(mask)[2]) == {K}
    assert dice(mask[:, :, K], CT.objects["lesion"][:, :, K]) > FROM_CLICK
    assert answer["label_names"] == {"lesion": 1}


def test_the_recorded_request_of_smart_edit(slicer: MONAILabelClient) -> None:
    # The options that MONAI Label's own sam_2d has come along where a person has set them before.
    i0, i1, j0, j1, _, _ = CT.roi("lesion", 2)
    params = {
        "label": "lesion", "foreground": [LESION], "background": [],
        "device": config_of(slicer, "sam_2d")["device"],
        "reset_state": False, "largest_cc": False, "pylab": False,
        "roi": _roi([i0, i1, j0, j1, K - 1, K + 1]), "slice": K,
        "result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "user-xyz",
    }  # fmt: skip
    mask, answer = _infer(slicer, "sam_2d", "ct", params)
    assert dice(mask[:, :, K], CT.objects["lesion"][:, :, K]) > FROM_BOX
    assert answer["label_names"] == {"lesion": 1}


def test_a_label_map_that_comes_along_is_no_name(slicer: MONAILabelClient, tmp_path: Path) -> None:
    # As the extension sends scribbles: a file in the place where the label's name is meant to be.
    file = studies.write_nrrd(tmp_path / "scribbles.nrrd", np.zeros_like(CT.image, np.uint8), CT.affine)
    params = {"label_info": [{"name": "lesion", "id": 1}], "selected_label_name": "lesion"}
    prompts = {**params, "foreground": [LESION], "background": []}
    mask, answer = _infer(slicer, "biosam2_point", "ct", prompts, label_in=str(file))
    assert mask[tuple(LESION)] == 1
    assert str(tmp_path) not in str(answer)


def test_the_geometry_is_that_of_the_image(slicer: MONAILabelClient, client: Client, server: Any) -> None:
    mr = studies.phantom("mr")
    path, _ = slicer.infer("biosam2_point", "mr", {**EXTRA, "foreground": [mr.click("tumour")]})
    mask, image = sitk.ReadImage(path), sitk.ReadImage(str(server.studies / "mr.nii.gz"))
    assert mask.GetSize() == image.GetSize()
    np.testing.assert_allclose(mask.GetSpacing(), image.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-5)


def test_a_roi_in_2d_with_a_slice_in_millimetres(slicer: MONAILabelClient) -> None:
    # The red view's offset, 30 - 3 * 9 mm, is no index; the ROI is one slice thick and knows better.
    i0, i1, j0, j1, _, _ = CT.roi("lesion")
    roi = _roi([i0, i1, j0, j1, K, K])
    params = {"foreground": [], "background": [], "roi": roi, "slice": 3, "label": "lesion"}
    mask, _ = _infer(slicer, "biosam2_box", "ct", params)
    assert set(np.nonzero(mask)[2]) == {K}
    assert dice(mask[:, :, K], CT.objects["lesion"][:, :, K]) > FROM_BOX


def test_a_slice_beyond_the_volume_is_taken_for_an_offset(slicer: MONAILabelClient) -> None:
    params = {"foreground": [], "background": [], "roi": _roi(CT.roi("lesion")), "slice": 400}
    mask, _ = _infer(slicer, "biosam2_box", "ct", params)
    (k,) = set(np.nonzero(mask)[2])
    low, high = CT.roi("lesion")[4:]
    assert low <= k <= high


def test_a_roi_of_which_a_part_is_outside(slicer: MONAILabelClient) -> None:
    params = {"foreground": [LESION], "background": [], "roi": [140, 56, 38, -25, K - 2, K + 2], "slice": K}
    mask, _ = _infer(slicer, "biosam2_point", "ct", params)
    assert set(np.nonzero(mask)[2]) == {K}
    clipped, _ = _infer(slicer, "biosam2_point", "ct", {**params, "roi": [96, 56, 38, 0, K - 2, K + 2]})
    np.testing.assert_array_equal(mask, clipped)


def test_slice_0_comes_with_the_points_of_all_slices(slicer: MONAILabelClient) -> None:
    # On every other slice the extension sends the points of that slice alone.
    shown = [48, 40, 0]
    prompts = {"foreground": [shown, LESION], "background": [CT.click("organ")], "slice": 0}
    mask, answer = _infer(slicer, "biosam2_point", "ct", prompts)
    assert answer["slice"] == 0
    assert set(np.nonzero(mask)[2]) == {0}
    alone, _ = _infer(slicer, "biosam2_point", "ct", {"foreground": [shown], "background": [], "slice": 0})
    np.testing.assert_array_equal(mask, alone)


def test_an_answer_holds_a_file_also_where_it_finds_nothing(slicer: MONAILabelClient) -> None:
    # The class cannot read an answer without one.
    for model in ("biosam2_point", "biosam2_propagate"):
        path, answer = slicer.infer(model, "ct", {**EXTRA, "foreground": [[0, 0, 23]], "background": []})
        assert read_nrrd(Path(path).read_bytes())[0].shape == CT.image.shape
        assert answer["label_names"]


def test_a_volume_with_points_and_roi(slicer: MONAILabelClient) -> None:
    params = {**config_of(slicer, "biosam2_propagate"), "label": "lesion", "roi": _roi(CT.roi("lesion", 2))}
    params |= {"foreground": [LESION], "background": []}
    mask, answer = _infer(slicer, "biosam2_propagate", "ct", params)
    assert dice(mask, CT.objects["lesion"]) > THROUGH_VOLUME
    assert answer["label_names"] == {"lesion": 1}


def test_deepedit_names_every_label_and_the_current_one(slicer: MONAILabelClient) -> None:
    params = {**config_of(slicer, "biosam2_multi"), "lesion": [LESION], "organ": [CT.click("organ")]}
    mask, answer = _infer(slicer, "biosam2_multi", "ct", {**params, "label": "organ"})
    assert answer["label_names"] == {"lesion": 1, "organ": 2}
    assert dice(mask == 1, CT.objects["lesion"]) > THROUGH_VOLUME
    assert dice(mask == 2, CT.objects["organ"]) > THROUGH_VOLUME


@pytest.mark.parametrize("params", [{"label": "lesion"}, {"label": "organ", "reset_state": True}])
def test_switching_the_label_changes_the_name_alone(slicer: MONAILabelClient, params: dict[str, Any]) -> None:
    prompts = {"foreground": [LESION], "background": []}
    plain, _ = _infer(slicer, "biosam2_point", "ct", prompts)
    mask, answer = _infer(slicer, "biosam2_point", "ct", {**prompts, **params})
    np.testing.assert_array_equal(mask, plain)
    assert answer["label_names"] == {params["label"]: 1}


def test_the_default_answer_is_a_file_of_the_image_s_own_type(slicer: MONAILabelClient) -> None:
    path, answer = slicer.infer("biosam2_point", "ct", {"foreground": [LESION]})
    assert path.endswith(".nii.gz")
    assert gzip.decompress(Path(path).read_bytes())
    assert answer["score"] <= 1.0


# The class leaves the uploaded file open, which Python warns of.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_session_upload(slicer: MONAILabelClient, tmp_path: Path) -> None:
    file = studies.write_nifti(tmp_path / "upload.nii.gz", CT.image, CT.affine)
    session = slicer.create_session(str(file))["session_id"]
    prompts = {"foreground": [LESION], "background": []}
    mask, _ = _infer(slicer, "biosam2_point", "", prompts, session_id=session)
    stored, _ = _infer(slicer, "biosam2_point", "ct", prompts)
    np.testing.assert_array_equal(mask, stored)
    again, _ = _infer(slicer, "biosam2_point", "", prompts, session_id=session)
    np.testing.assert_array_equal(again, stored)
    assert slicer.remove_session(session)


def test_an_upload_with_the_request(slicer: MONAILabelClient, tmp_path: Path) -> None:
    file = studies.write_nrrd(tmp_path / "upload.nrrd", CT.image, CT.affine)
    prompts = {"foreground": [LESION], "background": []}
    mask, _ = _infer(slicer, "biosam2_point", "", prompts, file=str(file))
    stored, _ = _infer(slicer, "biosam2_point", "ct", prompts)
    np.testing.assert_array_equal(mask, stored)


def test_the_reason_of_a_refusal_reaches_the_dialog(slicer: MONAILabelClient) -> None:
    with pytest.raises(MONAILabelClientException) as caught:
        slicer.infer("biosam2_point", "ct", {**EXTRA, "foreground": [[96, 25, K]]})
    assert caught.value.status_code in (None, 400)
    assert "Status: 400" in caught.value.msg
    assert "96" in caught.value.msg
