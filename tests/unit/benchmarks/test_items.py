import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from benchmarks.items import held_out_items, phantom_items, read_items, rule_of
from pretraining.split import NEVER


@pytest.fixture
def pack(tmp_path):
    volume = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 20).astype(np.uint8), np.eye(4)), tmp_path / "ct_label.nii.gz")
    (tmp_path / "frames").mkdir()
    (tmp_path / "masks").mkdir()
    colours = np.zeros((5, 7, 3), np.uint8)
    colours[1, 6] = 255
    Image.fromarray(colours).save(tmp_path / "frames" / "00002.png")
    Image.fromarray((colours[..., 0] > 0).astype(np.uint8)).save(tmp_path / "masks" / "00002.png")
    common = {"modality": "CT", "may_train_shipped_weights": False}
    twin = {"file": "x", "label_file": "y", "labels": {}, **common}
    entries = [
        {"id": "ct", "kind": "volume", "file": "ct.nii.gz", "label_file": "ct_label.nii.gz",
         "labels": {"1": "organ"}, **common},
        {"id": "echo", "kind": "video", "file": "echo.mp4", "frames": "frames/%05d.png",
         "label_file": "masks/%05d.png", "frames_with_mask": [2], "labels": {"1": "ventricle"}, **common},
        {"id": "twin", "kind": "dicom series + DICOM SEG", **twin},
    ]  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps({"items": entries}))
    return tmp_path


def test_volumes_and_frames_are_taken_and_dicom_twins_are_not(pack):
    items = read_items(pack)
    assert [item.id for item in items] == ["ct", "echo"]
    assert [item.is_volume for item in items] == [True, False]
    assert [item.split for item in items] == [NEVER, NEVER]
    assert not any(item.seen for item in items)


def test_a_volume_is_ijk(pack):
    item = read_items(pack)[0]
    assert item.read_image()[3, 2, 1] == 23
    assert item.read_label().tolist() == (item.read_image() > 20).tolist()


def test_a_picture_is_xy_with_one_slice(pack):
    item = read_items(pack)[1]
    assert item.read_image().shape == (7, 5, 1, 3)
    assert np.argwhere(item.read_label()).tolist() == [[6, 1, 0]]


def test_the_manifest_says_what_an_object_is():
    for labels, rule in [
        ({"1..125": "nucleus instance id"}, "instances"),
        ({"1": "cell_interior"}, "components"),
        ({"1": "necrosis", "2": "oedema"}, "union"),
        ({"1": "liver", "2": "vertebra"}, "labels"),
    ]:
        assert rule_of({"labels": labels}) == rule
    assert rule_of({"labels": {"1": "left atrium"}, "label_ids_are_objects": True}) == "instances"


def test_what_training_never_uses_is_bounded_by_kind(tmp_path):
    entry = {"kind": "image2d", "file": "a.png", "label_file": "b.png", "labels": {"1": "polyp"}}
    kinds = {"endoscopy": (9, True), "MR T1c": (6, False), "fundus": (2, True)}
    entries = [
        {"id": f"{kind}_{number}", "modality": kind, "may_train_shipped_weights": allowed, **entry}
        for kind, (count, allowed) in kinds.items()
        for number in range(count)
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"items": entries}))
    items = held_out_items(tmp_path, 3)
    # Two images of a kind are too few to hold any out.
    assert [item.modality for item in items] == ["endoscopy"] * 3 + ["MR T1c"] * 3
    assert {item.split for item in items} == {"held out", "not for training"}
    assert [item.group for item in items] == ["endoscopy"] * 3 + ["MR"] * 3


def test_phantoms_stand_in_with_their_truth(tmp_path):
    items = {item.id: item for item in phantom_items(tmp_path)}
    assert {"abdomen_ct", "head_mr", "cells"} <= set(items)
    abdomen = items["abdomen_ct"]
    assert abdomen.seen is None
    assert abdomen.read_image().shape == abdomen.read_label().shape
    assert "liver" in abdomen.names.values()
    assert items["cells"].read_image().shape[:3] == items["cells"].read_label().shape
