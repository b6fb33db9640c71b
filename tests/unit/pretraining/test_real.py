"""Real scenes, made of small arrays: no data needed."""

import json

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from pretraining.pack import pack
from pretraining.real import load_stacks, read_plane, real_scenes, to_levels
from pretraining.views import draw_motion


@pytest.fixture
def folder(tmp_path):
    """A data folder with one allowed CT of two blocks and one volume that may not be trained on."""
    image = np.full((40, 44, 36), -1000, dtype=np.int16)
    labels = np.zeros(image.shape, dtype=np.uint8)
    for number, block in enumerate((np.s_[4:14, 6:20, 5:30], np.s_[24:36, 28:40, 5:30]), start=1):
        image[block], labels[block] = 100, number
    items = []
    for name, allowed in (("ct", True), ("secret", False)):
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / f"{name}_labels.nii.gz")
        items.append(
            {
                "id": name,
                "kind": "volume",
                "modality": "CT",
                "file": f"{name}.nii.gz",
                "label_file": f"{name}_labels.nii.gz",
                "spacing_mm": [1.0, 1.0, 1.0],
                "may_train_shipped_weights": allowed,
            }
        )
    (tmp_path / "manifest.json").write_text(json.dumps({"items": items}))
    return tmp_path


def test_only_allowed_items_are_read(folder):
    names = {s.name.split("/")[0] for s in load_stacks([folder])}
    assert names == {"ct"}


def test_views_and_clips_have_the_shape_of_synthetic_scenes(folder, gen):
    stacks = load_stacks([folder])
    for frames in (1, 3):
        scenes = real_scenes(stacks, gen, 2, 64, frames=frames)
        assert scenes.images.shape == (2, frames, 3, 64, 64)
        assert scenes.labels.shape == (2, frames, 64, 64)
        assert scenes.labels.dtype == torch.long


def test_bright_places_are_the_labelled_ones(folder, gen):
    scenes = real_scenes(load_stacks([folder]), gen, 8, 64)
    inside, outside = scenes.labels[:, 0] > 0, scenes.labels[:, 0] == 0
    contrast = (scenes.images[:, 0, 0][inside].mean() - scenes.images[:, 0, 0][outside].mean()).abs()
    assert float(contrast) > 0.2


def test_a_clip_of_one_still_begins_with_it_and_moves():
    motion = draw_motion(5, 32, np.random.default_rng(3))
    assert motion.shape == (5, 32, 32, 2)
    assert not motion[0].any()
    assert all(motion[n].any() for n in range(1, 5))
    assert float((motion[:, 1:] - motion[:, :-1]).abs().max()) < 0.25  # it is smooth


def test_labels_of_a_still_move_with_its_picture(tmp_path, gen):
    labels = np.zeros((48, 48), dtype=np.uint8)
    labels[12:30, 16:36] = 1
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.fromarray(labels * 200).save(tmp_path / "still.png")
    item = {"id": "still", "kind": "image2d", "modality": "ultrasound", "file": "still.png",
            "label_file": "labels.png", "may_train_shipped_weights": True}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps({"items": [item]}))
    scenes = real_scenes(load_stacks([tmp_path]), gen, 8, 64, frames=4)
    assert scenes.images.shape == (8, 4, 3, 64, 64)
    assert any((clip[0] != clip[-1]).any() for clip in scenes.labels)
    inside = scenes.labels > 0
    contrast = (scenes.images[:, :, 0][inside].mean() - scenes.images[:, :, 0][~inside].mean()).abs()
    assert float(contrast) > 0.2


def test_hounsfield_units_get_the_soft_tissue_window():
    levels = to_levels(np.array([-1000.0, -160.0, 40.0, 240.0, 2000.0]))
    assert levels.tolist() == [0, 0, 128, 255, 255]


def test_levels_pass_unchanged():
    array = np.arange(256, dtype=np.uint8)
    assert to_levels(array) is array


def test_touching_objects_stay_apart_where_the_ids_are_objects(tmp_path):
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[5:20, 5:30], labels[20:35, 5:30] = 1, 2
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    item = {"id": "heart", "file": "image.png", "label_file": "labels.png", "label_ids_are_objects": True}
    assert np.unique(read_plane(tmp_path, item)[1]).tolist() == [0, 1, 2]
    assert np.unique(read_plane(tmp_path, item | {"label_ids_are_objects": False})[1]).tolist() == [0, 1]


def test_colour_is_kept_and_grey_in_three_channels_is_grey(tmp_path, gen):
    red = np.zeros((48, 48, 3), dtype=np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    Image.fromarray(np.full((48, 48, 3), 90, dtype=np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.full((48, 48), 1, dtype=np.uint8)).save(tmp_path / "labels.png")
    items = [
        {"id": name, "kind": "image2d", "modality": name, "file": f"{name}.png", "label_file": "labels.png",
         "label_ids_are_objects": True, "may_train_shipped_weights": True}
        for name in ("red", "grey")
    ]  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps({"items": items}))
    stacks = load_stacks([tmp_path])
    assert [s.pictures.shape for s in stacks] == [(1, 48, 48, 3), (1, 48, 48)]
    assert real_scenes(stacks, gen, 4, 64).images.shape == (4, 1, 3, 64, 64)


def test_a_kind_of_many_pictures_does_not_take_its_share_of_them(tmp_path):
    Image.fromarray(np.full((16, 16), 1, dtype=np.uint8)).save(tmp_path / "one.png")
    kinds = ["nuclei"] * 35 + ["heart"] * 3
    items = [
        {"id": f"{kind}{n}", "kind": "image2d", "modality": kind, "file": "one.png", "label_file": "one.png",
         "may_train_shipped_weights": True, "label_ids_are_objects": True}
        for n, kind in enumerate(kinds)
    ]  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps({"items": items}))
    stacks = load_stacks([tmp_path])
    share = sum(s.weight for s in stacks if s.kind == "nuclei") / sum(s.weight for s in stacks)
    assert 0.5 < share < 0.75


def test_a_packed_file_trains_like_its_folder(folder, gen, tmp_path):
    stacks = load_stacks([folder])
    pack(stacks, tmp_path / "pack.npz", longest=20)
    packed = load_stacks([tmp_path / "pack.npz"])
    assert [(s.name, s.kind, s.weight) for s in packed] == [(s.name, s.kind, s.weight) for s in stacks]
    assert all(max(s.pictures.shape[1:]) == 20 for s in packed)
    assert all(np.unique(s.labels).tolist() == [0, 1, 2] for s in packed)
    assert real_scenes(packed, gen, 2, 64).images.shape == (2, 1, 3, 64, 64)
