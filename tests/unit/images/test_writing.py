"""Masks that other programs read back: same voxels, same place in the patient."""

import gzip
import io
import subprocess
import tempfile
import zlib
from pathlib import Path
from shutil import which

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from lib.errors import PromptError
from lib.images.medical_image import Voxels, make_image
from lib.images.writing import (
    BLOCK,
    PICTURE_EXTENSIONS,
    VOLUME_EXTENSIONS,
    gzip_file,
    write_gzip,
    write_mask,
    write_plain,
)

SHAPE = (6, 5, 4)
VOXEL = (4, 1, 2)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Temporary files of the code under test go where pytest cleans up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def image_of(shape=SHAPE, affine=None, **known):
    voxels = Voxels(np.zeros(shape, np.int16), np.eye(4) if affine is None else affine, **known)
    return make_image(voxels, Path("image.nii.gz"), "nifti")


def marked(shape=SHAPE, voxel=VOXEL, value=1, order="F"):
    mask = np.zeros(shape, np.uint8, order=order)
    mask[voxel] = value
    return mask


def test_itk_finds_the_voxel_where_it_is_in_the_patient(affine):
    for extension in VOLUME_EXTENSIONS:
        for compress in [False, True]:
            path = write_mask(marked(), image_of(affine=affine), extension, compress)
            assert path.name.endswith(extension)
            itk = sitk.ReadImage(str(path))
            assert itk.GetSize() == SHAPE
            assert itk.GetPixelID() == sitk.sitkUInt8
            assert np.argwhere(sitk.GetArrayFromImage(itk).T).tolist() == [list(VOXEL)]
            left, back, up = itk.TransformIndexToPhysicalPoint(VOXEL)
            assert [-left, -back, up, 1] == pytest.approx(affine @ [*VOXEL, 1], abs=1e-4)


def test_nibabel_finds_it_too(affine):
    for extension in [".nii", ".nii.gz"]:
        image = nib.load(write_mask(marked(), image_of(affine=affine), extension, False))
        assert image.get_data_dtype() == np.uint8
        assert np.argwhere(np.asanyarray(image.dataobj)).tolist() == [list(VOXEL)]
        assert image.affine == pytest.approx(affine, abs=1e-5)
        assert nib.aff2axcodes(image.get_qform()) == nib.aff2axcodes(affine)
        assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
        assert image.header.get_xyzt_units()[0] == "mm"


def test_a_sheared_volume_keeps_its_affine():
    affine = np.array([[1, 0.3, 0, 5], [0, 1, 0.4, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
    image = nib.load(write_mask(marked(), image_of(affine=affine), ".nii.gz", False))
    assert image.affine == pytest.approx(affine, abs=1e-6)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 0)
    path = write_mask(marked(), image_of(affine=affine), ".nrrd", False)
    left, back, up = sitk.ReadImage(str(path)).TransformIndexToPhysicalPoint(VOXEL)
    assert [-left, -back, up, 1] == pytest.approx(affine @ [*VOXEL, 1], abs=1e-4)


@pytest.mark.parametrize("compress", [False, True])
def test_a_nrrd_is_what_a_browser_reads(compress):
    # OHIF: unsigned char, raw where not compressed, first axis fastest; here by pynrrd.
    mask = np.random.default_rng(0).integers(0, 5, SHAPE).astype(np.uint8)
    path = write_mask(mask, image_of(), ".nrrd", compress)
    array, header = nrrd.read(str(path), index_order="F")
    assert np.array_equal(array, mask)
    assert header["type"] == "unsigned char"
    assert header["encoding"] == ("gzip" if compress else "raw")
    assert header["space"] == "left-posterior-superior"
    assert path.read_bytes().startswith(b"NRRD0004\n")
    if not compress:
        assert path.read_bytes()[-mask.size :] == mask.tobytes(order="F")


def test_a_segmentation_has_the_names_that_slicer_shows():
    mask = marked(value=2)
    mask[0, 0, 0] = 1
    path = write_mask(mask, image_of(), ".seg.nrrd", True, label_names={"spleen": 1, "left kidney": 2})
    array, header = nrrd.read(str(path))
    assert np.array_equal(array, mask)
    segments = [(header[f"Segment{n}_Name"], header[f"Segment{n}_LabelValue"]) for n in (0, 1)]
    assert segments == [("spleen", "1"), ("left kidney", "2")]
    assert header["Segment0_Extent"] == "0 5 0 4 0 3"
    unnamed = nrrd.read_header(str(write_mask(mask, image_of(), ".seg.nrrd", False)))
    assert unnamed["Segment1_Name"] == "Segment_2"


@pytest.mark.parametrize("extension", PICTURE_EXTENSIONS)
def test_every_picture_is_a_png_with_columns_and_rows_in_place(extension):
    mask = marked((30, 20, 1), (26, 10, 0))
    path = write_mask(mask, image_of((30, 20, 1), is_2d=True), extension, False)
    assert path.suffix == ".png"
    with Image.open(path) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (30, 20), "L")
        assert np.argwhere(np.asarray(picture)).tolist() == [[10, 26]]


def test_a_picture_of_a_volume_is_refused():
    with pytest.raises(PromptError, match=r"4 slices cannot be one picture: ask for result_extension \.nrrd"):
        write_mask(marked(), image_of(), ".png", False)


def test_a_2d_image_can_be_asked_for_as_a_volume():
    path = write_mask(marked((30, 20, 1), (26, 10, 0)), image_of((30, 20, 1), is_2d=True), ".nrrd", False)
    assert sitk.ReadImage(str(path)).GetSize() == (30, 20, 1)


@pytest.mark.parametrize("extension", ["nrrd", ".NRRD", " .nrrd "])
def test_the_extension_may_lack_its_dot(extension):
    assert write_mask(marked(), image_of(), extension, False).name.endswith(".nrrd")


def test_another_extension_is_refused(temporary):
    for extension in ["", ".", ".stl", ".exe", "../x.nrrd", ".nii.gz/../../x"]:
        with pytest.raises(PromptError, match=r"cannot be written: ask for one of \.nii"):
            write_mask(marked(), image_of(), extension, False)
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("mask", [np.zeros((5, 6, 4), np.uint8), np.zeros(SHAPE, bool), np.zeros(SHAPE)])
def test_a_mask_of_another_grid_or_type_is_refused(mask):
    with pytest.raises(ValueError, match="does not fit"):
        write_mask(mask, image_of(), ".nrrd", False)


@pytest.mark.parametrize("extension", VOLUME_EXTENSIONS)
def test_empty_slices_read_back_as_zeros(extension):
    for order in ["C", "F"]:
        for used in [(), (0,), (39,), (3, 20), range(40)]:
            shape = (200, 180, 40)
            mask = np.zeros(shape, np.uint8, order=order)
            for k in used:
                mask[20:90, 30:100, k] = np.random.default_rng(k).integers(0, 3, (70, 70))
            path = write_mask(mask, image_of(shape), extension, True)
            assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, mask)
            if extension.startswith(".nii"):
                assert np.array_equal(np.asanyarray(nib.load(path).dataobj), mask)


def test_two_answers_are_two_files():
    image = image_of()
    assert write_mask(marked(), image, ".nrrd", False) != write_mask(marked(), image, ".nrrd", False)


def test_nothing_is_left_where_writing_fails(temporary, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib.images.writing.write_plain", full)
    with pytest.raises(OSError, match="No space"):
        write_mask(marked(), image_of(), ".nrrd", False)
    assert list(temporary.iterdir()) == []


def volume(k, used):
    memory = np.zeros((k, 300, 400), np.uint8)
    for index in used:
        memory[index, 10:200, 20:300] = np.random.default_rng(index).integers(0, 2, (190, 280))
    return memory


CASES = [(30, []), (30, [0]), (30, [29]), (30, [14, 15]), (1, [0]), (1, []), (30, list(range(30)))]


def test_one_member_with_the_right_check_sum():
    for k, used in CASES:
        for level in [1, 6]:
            memory, file = volume(k, used), io.BytesIO()
            write_gzip(file, b"header", memory, level)
            member = zlib.decompressobj(31)
            assert member.decompress(file.getvalue()) == b"header" + memory.tobytes()
            assert member.eof
            assert member.unused_data == b""
            assert gzip.decompress(file.getvalue()) == b"header" + memory.tobytes()


@pytest.mark.skipif(which("gzip") is None, reason="there is no gzip program here")
def test_the_gzip_program_agrees(tmp_path):
    memory = volume(30, [7])
    with (tmp_path / "a.gz").open("wb") as file:
        write_gzip(file, b"", memory, 1)
    unpacked = subprocess.run(["gzip", "-dc", tmp_path / "a.gz"], check=True, capture_output=True)
    assert unpacked.stdout == memory.tobytes()


def test_zeros_shrink_to_almost_nothing():
    file = io.BytesIO()
    write_gzip(file, b"", volume(60, [30]), 1)
    assert file.tell() < 60 * 300 * 400 // 100


def test_a_plain_file_is_header_and_voxels(tmp_path):
    for k, used in CASES:
        memory = volume(k, used)
        with (tmp_path / "a").open("wb") as file:
            write_plain(file, b"header", memory)
        assert (tmp_path / "a").read_bytes() == b"header" + memory.tobytes()


def test_the_cases_have_more_than_one_block_of_zeros():
    assert volume(30, [14]).nbytes > 2 * BLOCK


def test_a_file_with_holes_is_compressed_between_other_bytes(tmp_path):
    for number, (k, used) in enumerate([*CASES, (30, [3, 20])]):
        path, memory = tmp_path / str(number), volume(k, used)
        with path.open("wb") as file:
            write_plain(file, b"header", memory)
        assert (
            gzip.decompress(gzip_file(path, b"before", b"after")) == b"before" + path.read_bytes() + b"after"
        )
    (tmp_path / "empty").touch()
    assert gzip.decompress(gzip_file(tmp_path / "empty", b"before", b"after")) == b"beforeafter"
