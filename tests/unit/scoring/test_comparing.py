import numpy as np
import pytest

from lib.images.medical_image import Voxels, make_image
from lib.labels.label_map import LabelMap
from lib.scoring.comparing import asked_pairs, kept_pairs, spacing_of
from tests.support.phantoms import dice, rimmed


def volume(tmp_path, affine=None, is_2d=False, shape=(6, 5, 2)):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    voxels = Voxels(array, np.eye(4) if affine is None else affine, is_2d=is_2d)
    return make_image(voxels, tmp_path / "x.nii.gz", "nifti")


def test_voxels_have_a_size_and_pixels_of_a_picture_have_none(tmp_path):
    affine = np.diag([-0.5, 2.0, 3.0, 1.0])
    assert spacing_of(volume(tmp_path, affine)) == pytest.approx((0.5, 2, 3))
    assert spacing_of(volume(tmp_path, affine, is_2d=True, shape=(6, 5, 1))) == (1, 1, 1)


def test_a_picture_is_compared_in_its_plane(tmp_path):
    image = volume(tmp_path, is_2d=True, shape=(6, 5, 1))
    marks = np.zeros((6, 5, 1), np.uint8)
    marks[1:3, 1:4] = 1
    marks[4:6, 1:4] = 2  # two cells of one class
    labels = LabelMap(marks, {1: "cell", 2: "cell"})
    (pair,) = kept_pairs(image, labels, labels)
    assert (pair.label, pair.found.shape, pair.spacing) == ("cell", (6, 5), (1, 1))
    assert pair.found.sum() == pair.accepted.sum() == 12


def test_the_model_is_asked_slice_by_slice_in_the_plane_of_the_frame(tmp_path, engines):
    phantom = rimmed(0)
    image = make_image(Voxels(phantom.image, phantom.affine), tmp_path / "x.nii.gz", "nifti")
    values = sum(value * mask.astype(np.uint8) for value, mask in enumerate(phantom.objects.values(), 1))
    labels = LabelMap(values, {1: "bright", 2: "dark"})
    calls = []
    pairs = list(asked_pairs(engines.get(), image, labels, lambda: calls.append(1)))
    assert {pair.label for pair in pairs} == {"bright", "dark"}
    assert len(calls) == len(pairs)
    for pair in pairs:
        assert pair.found.shape == pair.accepted.shape == (48, 60)
        assert pair.spacing == pytest.approx((1.5, 1.0))  # along y, then x
        assert dice(pair.found, pair.accepted) > 0.2
