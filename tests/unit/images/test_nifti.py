"""NIfTI's own corners: voxels against nibabel, places against ITK."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.errors import ImageError
from lib.images.nifti import read_nifti
from lib.images.reading import read_image
from tests.unit.conftest import CODES, REGISTERED, SCANNED, write_forms

MANY = 10**9
ZEROS = np.zeros((5, 6, 7), np.int16)
SHEARED = np.array([[1, 0.3, 0, 5], [0, 1, 0.4, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def test_voxels_are_nibabels(tmp_path):
    for suffix in [".nii", ".nii.gz"]:
        for kind in [nib.Nifti1Image, nib.Nifti2Image]:
            for dtype in [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]:
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


def is_placed_as_itk_does(path):
    image, itk = read_image(path, MANY), sitk.ReadImage(str(path))
    for index in [(0, 0, 0), (4, 0, 0), (0, 5, 0), (0, 0, 6), (3, 1, 2)]:
        left, back, up = itk.TransformIndexToPhysicalPoint(index)
        assert image.affine @ [*index, 1] == pytest.approx([-left, -back, up, 1], abs=1e-4)
    return True


def test_of_two_forms_the_one_counts_that_itk_takes(tmp_path):
    for sform, qform in CODES:
        path = write_forms(tmp_path / "a.nii.gz", ZEROS, (sform, qform))
        assert is_placed_as_itk_does(path)
        if sform == 1 or (sform and not qform):
            expected = REGISTERED
        else:
            expected = SCANNED if qform else np.diag([-0.7, -0.9, 3, 1])
        assert read_nifti(path, MANY).affine == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("unit", "millimetres"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_metres_and_micrometres(tmp_path, unit, millimetres):
    path = write_forms(tmp_path / "a.nii", ZEROS, (0, 1), xyzt_units=unit)
    assert is_placed_as_itk_does(path)
    expected = np.diag([millimetres] * 3 + [1]) @ SCANNED
    assert read_nifti(path, MANY).affine == pytest.approx(expected, rel=1e-6)


def test_the_spacing_is_that_of_its_own_field(tmp_path):
    path = write_forms(tmp_path / "a.nii", ZEROS, (1, 0), sform=2 * SCANNED)
    assert is_placed_as_itk_does(path)
    assert np.linalg.norm(read_nifti(path, MANY).affine[:3, :3], axis=0) == pytest.approx([0.7, 0.9, 3])


@pytest.mark.parametrize("sform", [SHEARED, np.diag([1.0, 0, 0, 1])])
def test_a_qform_stands_in_for_a_sform_that_is_no_rotation(tmp_path, sform):
    path = write_forms(tmp_path / "a.nii", ZEROS, (1, 1), sform=sform)
    assert is_placed_as_itk_does(path)
    assert read_nifti(path, MANY).affine == pytest.approx(SCANNED, abs=1e-5)


@pytest.mark.parametrize("codes", [(0, 1), (2, 1)])
@pytest.mark.parametrize("by", [1e-6, 0.5])
def test_a_quaternion_longer_than_1_is_made_shorter(tmp_path, codes, by):
    path = write_forms(tmp_path / "a.nii", ZEROS, codes, quatern_b=0.6 + by, quatern_c=0.8, quatern_d=0)
    assert is_placed_as_itk_does(path)


def test_a_sheared_sform_alone_is_kept(tmp_path):
    path = write_forms(tmp_path / "a.nii", ZEROS, (1, 0), sform=SHEARED)
    assert read_nifti(path, MANY).affine == pytest.approx(SHEARED)


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1)])
def test_nifti_2_which_itk_does_not_open_is_placed_as_nibabel_does(tmp_path, codes):
    path = write_forms(tmp_path / "a.nii.gz", ZEROS, codes, nib.Nifti2Image)
    assert read_nifti(path, MANY).affine == pytest.approx(nib.load(path).affine)


def test_a_form_that_cannot_place_the_image_is_refused(tmp_path):
    path = write_forms(tmp_path / "a.nii", ZEROS, (1, 0), sform=np.diag([1.0, 0, 0, 1]))
    with pytest.raises(ImageError, match=r"a\.nii: the image's geometry cannot be used.*set the spacing"):
        read_image(path, MANY)
    path = write_forms(tmp_path / "b.nii", ZEROS, (0, 1), nib.Nifti2Image, quatern_b=1, quatern_c=1)
    with pytest.raises(ImageError, match=r"b\.nii: its qform is no rotation .*: set the spacing"):
        read_image(path, MANY)


def test_a_2d_image_lies_in_itks_plane_or_where_its_file_says(tmp_path):
    flat = np.zeros((5, 6), np.int16)
    axial = read_nifti(write_forms(tmp_path / "a.nii", flat, (1, 1), sform=SCANNED), MANY).affine
    assert axial == pytest.approx(np.array([[-0.7, 0, 0, 10], [0, -0.9, 0, 12], [0, 0, 1, 0], [0, 0, 0, 1]]))
    upright = SCANNED[:, [2, 0, 1, 3]]
    path = write_forms(tmp_path / "b.nii", flat, (1, 0), sform=upright)
    assert read_nifti(path, MANY).affine == pytest.approx(upright)
