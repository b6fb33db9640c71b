"""A label on its image's voxels, whatever grid it was saved on."""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lib.errors import LabelError
from lib.images.medical_image import LPS_IDENTITY, Voxels, make_image
from lib.images.reading import read_image
from lib.images.writing import write_mask
from lib.labels.grid import on_image_grid
from lib.labels.reading import read_labels
from lib.labels.values import LabelFile
from tests.unit.labels.conftest import GRIDS, drawn


@pytest.mark.parametrize("name", GRIDS)
def test_on_the_images_own_grid_a_label_is_as_it_was_saved(image, nifti, name):
    affine, shape = GRIDS[name]
    labels, _ = drawn(affine, shape)
    found = read_labels(nifti(labels, affine), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


@pytest.mark.parametrize("image_grid", GRIDS)
def test_on_any_other_grid_its_objects_are_at_the_same_millimetres(image, nifti, image_grid):
    for label_grid in GRIDS:
        (affine, shape), (own, own_shape) = GRIDS[image_grid], GRIDS[label_grid]
        found = read_labels(nifti(drawn(own, own_shape)[0], own), image(affine, shape))
        truth, away = drawn(affine, shape)
        inside = nib.affines.apply_affine(np.linalg.inv(own) @ affine, np.stack(np.indices(shape), axis=-1))
        covered = ((inside > -0.5) & (inside < np.array(own_shape) - 0.5)).all(axis=-1)
        # A nearest voxel's centre is at most half a voxel's diagonal off.
        sure = covered & (away > np.linalg.norm(np.linalg.norm(own[:3, :3], axis=0)) / 2)
        np.testing.assert_array_equal(found.array[sure], truth[sure])
        assert set(np.unique(found.array[sure])) == {0, 1, 2}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("label_grid", ["sagittal", "oblique"])
def test_as_itk_resamples_it(image, nifti, tmp_path, label_grid, suffix):
    (affine, shape), (own, own_shape) = GRIDS["LPS"], GRIDS[label_grid]
    as_nifti = nifti(drawn(own, own_shape)[0], own)
    path = tmp_path / f"other{suffix}"
    label = sitk.ReadImage(str(as_nifti))
    sitk.WriteImage(label, str(path))
    reference = sitk.ReadImage(str(nifti(np.zeros(shape, np.uint8), affine, "image.nii.gz")))
    expected = sitk.GetArrayFromImage(
        sitk.Resample(label, reference, sitk.Transform(), sitk.sitkNearestNeighbor)
    )
    found = read_labels(path, image(affine, shape)).array
    # Both round; points within a thousandth of a voxel of the border between two may fall either way.
    assert (found != expected.transpose(2, 1, 0)).mean() < 1e-4
    assert found.any()


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_a_flipped_grid(image, nifti, axes):
    affine, shape = GRIDS["RAS"]
    labels, _ = drawn(affine, shape)
    flip = np.eye(4)
    for axis in axes:
        flip[axis, axis], flip[axis, 3] = -1, shape[axis] - 1
    found = read_labels(nifti(np.flip(labels, axes), affine @ flip), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


def test_swapped_axes(image, nifti):
    affine, shape = GRIDS["oblique"]
    labels, _ = drawn(affine, shape)
    found = read_labels(nifti(labels.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


def test_a_label_that_is_cut_to_its_objects(image, nifti):
    affine, shape = GRIDS["oblique"]
    labels, _ = drawn(affine, shape)
    used = np.argwhere(labels)
    low, high = used.min(axis=0), used.max(axis=0) + 1
    cut = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    assert cut.size < labels.size / 2
    shifted = affine.copy()
    shifted[:3, 3] = nib.affines.apply_affine(affine, low)
    found = read_labels(nifti(cut, shifted), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


def test_a_label_of_a_larger_volume_than_the_image(image, nifti):
    affine, shape = GRIDS["LPS"]
    labels, _ = drawn(affine, shape)
    shifted = affine.copy()
    shifted[:3, 3] = nib.affines.apply_affine(affine, [10, 7, 4])
    found = read_labels(nifti(labels, affine), image(shifted, (20, 30, 15)))
    np.testing.assert_array_equal(found.array, labels[10:30, 7:37, 4:19])


def test_a_grid_of_half_the_spacing_has_no_stripes(image, nifti):
    """Image voxels lie on the borders of label voxels: all must go to the same side, in spite of rounding."""
    affine, shape = GRIDS["oblique"]
    fine = affine.copy()
    fine[:3, :3] = affine[:3, :3] / 2
    ramp = np.zeros(tuple(2 * side for side in shape), np.uint8)
    ramp[...] = np.arange(2 * shape[0])[:, None, None] + 1
    found = read_labels(nifti(ramp, fine.astype(np.float32)), image(affine, shape))
    on_voxels = np.broadcast_to((2 * np.arange(shape[0]) + 1)[:, None, None], shape)
    np.testing.assert_array_equal(found.array, on_voxels)
    # An image voxel's centre is now halfway between two label voxels.
    fine[:3, 3] = nib.affines.apply_affine(affine, [-0.25, -0.25, -0.25])
    between = read_labels(nifti(ramp, fine.astype(np.float32)), image(affine, shape))
    assert len({tuple(row) for row in between.array.reshape(shape[0], -1).T}) == 1


def test_an_image_voxel_on_the_outer_half_of_a_label_voxel_is_labelled(image, nifti):
    coarse = np.diag([4.0, 4.0, 4.0, 1.0])
    fine = np.diag([1.0, 1.0, 1.0, 1.0])
    fine[:3, 3] = -1.5
    found = read_labels(nifti(np.ones((2, 2, 2), np.uint8), coarse), image(fine, (10, 10, 10)))
    assert found.array[:8, :8, :8].all()
    assert np.count_nonzero(found.array) == 512


def test_float_noise_in_the_affine_changes_nothing(image, nifti):
    affine, shape = GRIDS["oblique"]
    labels, _ = drawn(affine, shape)
    noisy = affine.astype(np.float32).astype(float) + np.random.default_rng(0).normal(0, 1e-5, (4, 4))
    noisy[3] = [0, 0, 0, 1]
    found = read_labels(nifti(labels, noisy), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


def test_a_slice_of_the_image_may_have_another_thickness(image, nifti):
    affine, shape = np.diag([1.0, 1.0, 3.0, 1.0]), (12, 9, 1)
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 6, 0] = 1
    found = read_labels(nifti(labels, np.diag([1.0, 1.0, 8.0, 1.0])), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


def test_a_label_elsewhere_in_space_is_refused(image, nifti):
    affine, shape = GRIDS["RAS"]
    away = affine.copy()
    away[:3, 3] += [0, 0, 300]
    path = nifti(drawn(affine, shape)[0], away)
    with pytest.raises(LabelError, match=r"label.nii.gz: it lies elsewhere .* 300 mm apart.*export it again"):
        read_labels(path, image(affine, shape))


def test_a_label_whose_objects_miss_the_image_is_refused(image, nifti):
    affine, shape = GRIDS["RAS"]
    labels = np.zeros(shape, np.uint8)
    labels[:5] = 1
    shifted = affine.copy()
    shifted[:3, 3] = nib.affines.apply_affine(affine, [20, 0, 0])
    with pytest.raises(LabelError, match=r"label.nii.gz: none of its objects lies inside"):
        read_labels(nifti(labels, affine), image(shifted, shape))


def test_an_object_outside_the_image_is_named_in_the_log(image, nifti, caplog):
    affine, shape = GRIDS["RAS"]
    labels = np.zeros(shape, np.uint8)
    labels[:5], labels[25:30] = 1, 2
    shifted = affine.copy()
    shifted[:3, 3] = nib.affines.apply_affine(affine, [20, 0, 0])
    info = [{"name": "spleen", "idx": 1}, {"name": "liver", "idx": 2}]
    found = read_labels(nifti(labels, affine), image(shifted, shape), info)
    assert found.names == {2: "liver"}
    assert "nothing is left of spleen" in caplog.text


def _without_affine(array, path):
    saved = nib.Nifti1Image(array, None)
    saved.header.set_sform(None, code=0)
    saved.header.set_qform(None, code=0)
    saved.to_filename(path)
    return path


def test_a_nifti_without_an_affine_is_taken_voxel_by_voxel(image, tmp_path):
    affine, shape = GRIDS["oblique"]
    labels, _ = drawn(affine, shape)
    path = _without_affine(labels, tmp_path / "label.nii")
    np.testing.assert_array_equal(read_labels(path, image(affine, shape)).array, labels)
    with pytest.raises(
        LabelError, match="it is 44 x 50 x 24 and its image 50 x 44 x 24, and without a position"
    ):
        read_labels(path, image(affine, (50, 44, 24)))


def test_a_label_of_a_nifti_image_without_an_affine_is_taken_voxel_by_voxel(image, nifti, tmp_path):
    """Programs make up different affines for it: nibabel the middle as origin, ITK the first voxel."""
    affine, shape = GRIDS["RAS"]
    labels, _ = drawn(affine, shape)
    path = _without_affine(np.zeros(shape, np.int16), tmp_path / "image.nii")
    opened = image(nib.load(path).affine, shape, file_format="nifti", path=path)
    by_itk = nifti(labels, LPS_IDENTITY @ np.diag([1.0, 1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(read_labels(by_itk, opened).array, labels)


def turned(angles, sides, origin, flips):
    """RAS affine of voxels of these sides, turned about three axes and counted backwards along some."""
    turn = Rotation.from_euler("xyz", angles).as_matrix() * np.where(flips, -1.0, 1.0)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * np.array(sides), origin
    return affine


ANGLES = st.tuples(*[st.sampled_from([0.0, np.pi / 2, -np.pi]) | st.floats(-3.1, 3.1)] * 3)
AFFINES = st.builds(
    turned,
    ANGLES,
    st.tuples(*[st.floats(0.3, 5)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
    st.tuples(*[st.booleans()] * 3),
)


@settings(max_examples=60, deadline=None)
@given(AFFINES, AFFINES)
def test_any_format_in_any_orientation_keeps_its_objects_in_their_place(affine, other):
    """Image formats x label formats, on one grid voxel by voxel, and on any other by millimetres."""
    shape = (13, 11, 9)
    centre = affine @ [6.2, 5.1, 4.3, 1]
    world = np.moveaxis(np.tensordot(affine, np.stack([*np.indices(shape), np.ones(shape)]), 1), 0, -1)
    mask = np.asfortranarray((np.linalg.norm(world - centre, axis=-1) < 4).astype(np.uint8))
    mask[6, 5, 4] = 1
    with tempfile.TemporaryDirectory() as folder:
        source = make_image(Voxels(mask.astype(np.int16) * 900, affine), Path(folder), "itk")
        for image_type in (".nii.gz", ".nrrd", ".mha"):
            path = write_mask(mask, source, image_type)
            image = read_image(path, 10**9)
            np.testing.assert_allclose(image.affine, affine, atol=2e-3)
            np.testing.assert_array_equal(image.array, mask)
            for label_type in (".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha"):
                label = write_mask(mask, image, label_type)
                np.testing.assert_array_equal(read_labels(label, image).array, mask)
                label.unlink()
            path.unlink()
    # A label on another grid: each image voxel gets the label's voxel in which its centre lies.
    other = other.copy()
    other[:3, 3] += centre[:3] - (other @ [6.2, 5.1, 4.3, 1])[:3]
    found = on_image_grid(LabelFile(mask, other), source)
    inside = np.moveaxis(np.tensordot(np.linalg.inv(other), np.moveaxis(world, -1, 0), 1), 0, -1)[..., :3]
    index = np.rint(inside).astype(int)
    sure = np.abs(np.abs(inside - index) - 0.5).min(axis=-1) > 0.01
    within = ((index >= 0) & (index < shape)).all(axis=-1)
    nearest = mask[tuple(np.clip(index, 0, np.array(shape) - 1).reshape(-1, 3).T)].reshape(shape)
    expected = np.where(within, nearest, 0)
    np.testing.assert_array_equal(found[sure], expected[sure])
