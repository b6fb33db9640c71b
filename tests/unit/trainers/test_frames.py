from __future__ import annotations

import json
import os
import time

import nibabel as nib
import numpy as np
import pytest

from lib.errors import LabelError, TrainingError
from lib.trainers.frames import MARGIN, LabelledImage, prepare_frames, split
from tests.support.studies import write_picture
from tests.unit.trainers.conftest import MAX_VOXELS, SHAPE


def test_frames_and_masks_are_those_of_the_files(labelled, images):
    image = images[0]
    labels = np.asarray(nib.load(labelled[0].label).dataobj)
    first = max(0, int(np.flatnonzero(labels.any((0, 1)))[0]) - MARGIN)
    assert (image.height, image.width) == (SHAPE[1], SHAPE[0])
    assert image[2].shape == (SHAPE[1], SHAPE[0], 3)
    assert image[2].dtype == np.uint8
    for t in range(len(image)):
        for value in (1, 2):
            assert (image.mask(t, value) == (labels[:, :, first + t] == value).T).all()


def test_the_bright_body_is_bright(images):
    image = images[0]
    frame, middle = image[len(image) // 2][..., 0], len(image) // 2
    bright, dark = (frame[image.mask(middle, value)] for value in (1, 2))
    assert bright.mean() > 1.2 * frame.mean()
    assert dark.mean() < 0.8 * frame.mean()


def test_areas_names_and_spacing_are_known_without_reading_pixels(images):
    image = images[0]
    for t, areas in enumerate(image.objects):
        assert areas == {value: int(image.mask(t, value).sum()) for value in areas}
    assert set(image.names) == {1, 2}
    assert image.spacing == (1.5, 1.0)


def test_frames_beside_the_object_are_kept_and_those_far_from_it_are_not(tmp_path):
    labels = np.zeros((20, 16, 30), np.uint8)
    labels[4:9, 8:14, 12:15] = 1
    item = LabelledImage("long", tmp_path / "long.nii.gz", tmp_path / "label.nii.gz")
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=labels.shape), np.eye(4)), item.image)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), item.label)
    image = prepare_frames(item, tmp_path / "frames", MAX_VOXELS)
    assert len(image) == 3 + 2 * MARGIN
    assert [bool(areas) for areas in image.objects] == [False] * 2 + [True] * 3 + [False] * 2


def test_a_colour_picture_keeps_its_colours(tmp_path):
    pixels = np.zeros((30, 20, 1, 3), np.uint8)
    pixels[20:28, 3:9] = (200, 10, 60)
    item = LabelledImage("slide", tmp_path / "slide.png", tmp_path / "label.png")
    write_picture(item.image, pixels)
    write_picture(item.label, (pixels[..., 0] > 0).astype(np.uint8))
    image = prepare_frames(item, tmp_path / "frames", MAX_VOXELS)
    assert len(image) == 1
    assert image[0][5, 22].tolist() == [200, 10, 60]
    assert image.mask(0, 1)[5, 22]


def test_files_that_have_not_changed_are_not_laid_out_again(labelled, tmp_path):
    first = prepare_frames(labelled[0], tmp_path / "frames", MAX_VOXELS)
    written = (first.folder / "levels.npy").stat().st_mtime_ns
    again = prepare_frames(labelled[0], tmp_path / "frames", MAX_VOXELS)
    assert (again.digest, (again.folder / "levels.npy").stat().st_mtime_ns) == (first.digest, written)
    later = time.time() + 10
    os.utime(labelled[0].label, (later, later))
    assert prepare_frames(labelled[0], tmp_path / "frames", MAX_VOXELS).digest != first.digest


def test_half_written_frames_are_written_again(labelled, tmp_path):
    image = prepare_frames(labelled[0], tmp_path / "frames", MAX_VOXELS)
    (image.folder / "facts.json").unlink()
    (image.folder / "levels.npy").write_bytes(b"half")
    again = prepare_frames(labelled[0], tmp_path / "frames", MAX_VOXELS)
    assert again[0].shape == (SHAPE[1], SHAPE[0], 3)


def test_a_label_that_does_not_fit_is_refused_by_name(labelled, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), labelled[0].label)
    with pytest.raises(LabelError, match=r"case0"):
        prepare_frames(labelled[0], tmp_path / "frames", MAX_VOXELS)
    assert not list((tmp_path / "frames").glob("*/facts.json"))


def test_names_of_the_client_are_kept(labelled, tmp_path):
    info = ({"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2})
    item = LabelledImage(labelled[0].id, labelled[0].image, labelled[0].label, info)
    image = prepare_frames(item, tmp_path / "frames", MAX_VOXELS)
    assert image.names == {1: "liver", 2: "spleen"}
    assert json.loads((image.folder / "facts.json").read_text())["names"] == {"1": "liver", "2": "spleen"}


NAMES = [f"image{number}" for number in range(200)]


def test_a_share_of_the_images_measures(tmp_path):
    sides = split(NAMES, 0.2, tmp_path / "split.json")
    assert 25 <= list(sides.values()).count("val") <= 55


def test_sides_depend_on_the_name_alone(tmp_path):
    together = split(NAMES, 0.2, tmp_path / "a.json")
    part = split(NAMES[50:90], 0.2, tmp_path / "b.json")
    assert all(together[name] == side for name, side in part.items())


def test_a_case_never_changes_sides(tmp_path):
    record = tmp_path / "split.json"
    first = split(NAMES[:2], 0.2, record)
    for count in (3, 10, 200):
        sides = split(NAMES[:count], 0.2, record)
        assert {name: sides[name] for name in first} == first
    assert split(NAMES, 0.9, record) == sides


def test_two_images_are_one_of_each(tmp_path):
    for names in (["a", "b"], ["p", "q"], ["x1", "x2"], ["1", "2"]):
        assert sorted(split(names, 0.2, tmp_path / names[0]).values()) == ["train", "val"]


def test_fewer_than_two_say_what_to_do(tmp_path):
    for names in ([], ["only"], ["same", "same"]):
        with pytest.raises(TrainingError, match=r"at least 2.*Label more"):
            split(names, 0.2, tmp_path / "split.json")
    assert not (tmp_path / "split.json").exists()


def test_known_images_of_one_side_alone_ask_for_another(tmp_path):
    record = tmp_path / "split.json"
    record.write_text(json.dumps({"a": "train", "b": "train"}))
    with pytest.raises(TrainingError, match="label one more"):
        split(["a", "b"], 0.2, record)


def test_a_damaged_record_is_no_obstacle(tmp_path):
    record = tmp_path / "split.json"
    record.write_text("{not json")
    assert len(split(NAMES, 0.2, record)) == 200
