"""MITK: the image with every click, and an answer that it takes apart by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.support import studies
from tests.support.client import Client
from tests.support.phantoms import FROM_CLICK, THROUGH_VOLUME, dice

CT = studies.phantom("ct")
LESION = CT.click("lesion")


def test_a_slice_of_w_h_1_with_k_0(client: Client, tmp_path: Path) -> None:
    i, j, k = LESION
    # MITK clamps to the level window of its view first.
    shown = np.clip(CT.image[:, :, k : k + 1], -160, 240)
    file = studies.write_nifti(tmp_path / "post_from_mitk.nii.gz", shown, CT.affine)
    params = {"foreground": [[i, j, 0]], "background": [], "reset_state": True}
    answer = client.segment("biosam2_point", None, params, file=file)
    assert answer.mask.shape == (96, 80, 1)
    assert set(np.unique(answer.mask)) == {0, 1}
    assert dice(answer.mask, CT.objects["lesion"][:, :, k : k + 1]) > FROM_CLICK


def test_a_volume_and_a_second_click_without_reset(client: Client, tmp_path: Path) -> None:
    file = studies.write_nifti(tmp_path / "post_from_mitk.nii.gz", CT.image, CT.affine)
    first = {"foreground": [LESION], "background": [], "reset_state": True}
    second = {"foreground": [LESION, CT.click("lesion", 7)], "background": [], "reset_state": False}
    client.segment("biosam2_propagate", None, first, file=file)
    mask = client.segment("biosam2_propagate", None, second, file=file).mask
    assert mask.shape == CT.image.shape
    assert set(np.unique(mask)) == {0, 1}
    assert dice(mask, CT.objects["lesion"]) > THROUGH_VOLUME


def test_the_parts_are_params_and_then_octets(client: Client, tmp_path: Path) -> None:
    file = studies.write_nifti(tmp_path / "post_from_mitk.nii.gz", CT.image, CT.affine)
    answer = client.segment("biosam2_point", None, {"foreground": [LESION], "background": []}, file=file)
    params, image = answer.parts
    assert params.name == "params"
    assert json.loads(params.content)["label_names"]
    assert image.content_type == "application/octet-stream"
    assert image.filename is not None
    assert image.filename.endswith(".nii.gz")
