"""NIfTI's own corners, against nibabel."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from lib.errors import ImageError
from lib.images.nifti import read_nifti

MANY = 10**9
COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_are_nibabels(tmp_path, suffix, kind, dtype):
    array = np.random.default_rng(0).integers(0, 200, (3, 4, 5)).astype(dtype)
    path = tmp_path / f"a{suffix}"
    nib.save(kind(array, np.diag([1, 2, 3, 1.0])), path)
    found = read_nifti(path, MANY)
    assert np.array_equal(found.array, nib.load(path).get_fdata())
    assert found.array.dtype == dtype
    assert found.array.flags.f_contiguous
    assert not found.is_2d


def test_big_endian_voxels(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(array, np.eye(4), header), tmp_path / "a.nii")
    assert np.array_equal(read_nifti(tmp_path / "a.nii", MANY).array, array)


def test_the_headers_scaling_is_applied(tmp_path):
    image = nib.Nifti1Image(np.array([[[0, 1000, 4000]]], np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nib.save(image, tmp_path / "a.nii")
    expected = nib.load(tmp_path / "a.nii").get_fdata()
    found = read_nifti(tmp_path / "a.nii", MANY).array
    assert np.array_equal(found, expected)
    assert found.dtype == np.float32


def test_an_extension_between_header_and_voxels_is_skipped(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 500))
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(read_nifti(tmp_path / "a.nii.gz", MANY).array, array)


def test_two_axes_are_a_2d_image(tmp_path):
    array = np.arange(12, dtype=np.int16).reshape(4, 3)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    found = read_nifti(tmp_path / "a.nii", MANY)
    assert found.is_2d
    assert np.array_equal(found.array[:, :, 0], array)


def test_a_volume_of_one_slice_is_no_2d_image(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 3, 1), np.int16), np.eye(4)), tmp_path / "a.nii")
    assert not read_nifti(tmp_path / "a.nii", MANY).is_2d


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_colour_voxels(tmp_path, suffix):
    colours = np.random.default_rng(0).integers(0, 256, (4, 3, 2, 3)).astype(np.uint8)
    nib.save(nib.Nifti1Image(colours.view(COLOUR)[..., 0], np.eye(4)), tmp_path / f"a{suffix}")
    assert np.array_equal(read_nifti(tmp_path / f"a{suffix}", MANY).array, colours)


@pytest.mark.parametrize("shape", [(4, 3, 2, 3), (4, 3, 2, 4), (4, 3, 2, 1, 3)])
def test_a_last_axis_of_bytes_is_colours(tmp_path, shape):
    colours = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    nib.save(nib.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii")
    found = read_nifti(tmp_path / "a.nii", MANY).array
    assert np.array_equal(found, colours.reshape(4, 3, 2, -1)[..., :3])


@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (4, 3, 2, 2, 3), (2, 2, 2, 1, 1, 2), (5,)])
def test_other_numbers_of_axes_are_refused(tmp_path, shape):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match="three are the limit"):
        read_nifti(tmp_path / "a.nii", MANY)


def test_a_cut_off_file_says_how_much_is_there(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((10, 10, 10), np.int16), np.eye(4)), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(content[:-500])
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:-500]))
    for name in ("a.nii", "b.nii.gz"):
        with pytest.raises(ImageError, match="promises 2000 bytes of voxels and it holds 1500"):
            read_nifti(tmp_path / name, MANY)
