"""Any label file: the right reader, a read-only label map, one kind of error; and the real ones."""

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from lib.errors import LabelError
from lib.images.reading import read_image
from lib.labels import read_labels
from tests.unit.labels.conftest import GRIDS, drawn

MANY = 2**29


@pytest.fixture
def label(nifti):
    """A label file and the (affine, shape) of its image."""
    affine, shape = GRIDS["LPS"]
    return nifti(drawn(affine, shape)[0], affine), affine, shape


def test_a_label_map_is_lean_and_cannot_be_changed(image, label):
    path, affine, shape = label
    found = read_labels(path, image(affine, shape))
    assert found.array.dtype == np.uint8
    assert found.array.flags.f_contiguous
    assert found.names == {1: "label_1", 2: "label_2"}
    with pytest.raises(ValueError, match="read-only"):
        found.array[0, 0, 0] = 1


def test_more_than_255_objects(image, nifti):
    array = np.arange(300, dtype=np.int32).reshape(10, 10, 3)
    found = read_labels(nifti(array, np.eye(4)), image(np.eye(4), array.shape))
    assert found.array.dtype == np.uint16
    assert len(found.names) == 299
    assert found.names[299] == "label_299"


def test_values_beyond_16_bits_keep_their_names(image, nifti):
    array = np.zeros((4, 5, 6), np.int32)
    array[1], array[2] = 7, 1_000_000
    found = read_labels(nifti(array, np.eye(4)), image(np.eye(4), array.shape))
    assert found.names == {1: "label_7", 2: "label_1000000"}
    assert (found.array == 2).sum() == 30


def test_where_nothing_is_drawn_there_are_no_names(image, nifti):
    found = read_labels(nifti(np.zeros((4, 5, 6), np.uint8), np.eye(4)), image(np.eye(4), (4, 5, 6)))
    assert (found.names, found.array.shape, found.array.any()) == ({}, (4, 5, 6), False)
    away = np.eye(4)
    away[:3, 3] = 500
    far = nifti(np.zeros((4, 5, 6), np.uint8), away)
    with pytest.raises(LabelError, match=r"label\.nii\.gz: it lies elsewhere in space"):
        read_labels(far, image(np.eye(4), (4, 5, 6)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 5, 6), np.nan, np.float32), r"label\.nii\.gz: it has NaN"),
        (np.full((4, 5, 6), 0.5, np.float32), r"label\.nii\.gz: it has values that are no whole numbers"),
        (np.full((4, 5, 6), -3, np.int16), r"label\.nii\.gz: it has negative values"),
        (np.ones((4, 5, 6, 2), np.uint8), r"label\.nii\.gz: .*4 axes \(4 x 5 x 6 x 2\).*save one volume"),
        (np.ones((4, 5, 6, 3), np.uint8), r"label\.nii\.gz: its voxels are colours: save one number"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(image, nifti, array, message):
    path = nifti(array, np.eye(4))
    with pytest.raises(LabelError, match=message):
        read_labels(path, image(np.eye(4), (4, 5, 6)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.nii.gz", b"", r"a\.nii\.gz is empty \(0 bytes\): save or export the label again"),
        (
            "a.nii.gz",
            b"no gzip at all, and longer than a header would be",
            "a.nii.gz cannot be read as a label",
        ),
        ("a.nii", b"0" * 400, "a.nii: it does not begin as a NIfTI file does"),
        ("a.nrrd", b"PNG or what", "a.nrrd: it does not begin as a NRRD file"),
        ("a.nrrd", b"NRRD0004\ntype: nothing\n\n", "a.nrrd cannot be read as a label"),
        ("a.seg.nrrd", b"NRRD0004\ntype: uchar\ndimension: 1\n", "a.seg.nrrd cannot be read as a label"),
        ("a.mha", b"ObjectType = Image\n", "a.mha: its header does not say once where"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "a.png cannot be read as a label"),
        ("a.tif", b"II*\x00", "a.tif cannot be read as a label"),
        ("a.xml", b"<ASAP_Annotations><Annot", "a.xml is no XML"),
        ("a.dcm", b"\x00" * 128 + b"DICM", "a.dcm"),
        ("a.dcm", b"hello", "a.dcm cannot be read as a label"),
        ("a.docx", b"hello", r"a\.docx: it is of no kind that can be read as a label: export one of \.nii"),
    ],
)
def test_a_damaged_file_is_refused_without_the_servers_folders(picture, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelError, match=message) as caught:
        read_labels(tmp_path / name, picture(4, 5))
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off(image, label):
    path, affine, shape = label
    plain = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(plain[:-1000]))
    with pytest.raises(LabelError, match=r"label\.nii\.gz: the file is cut off: its header promises"):
        read_labels(path, image(affine, shape))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(LabelError, match=r"label\.nii\.gz: its compressed voxels are damaged"):
        read_labels(path, image(affine, shape))


def test_a_file_that_is_not_there(picture, tmp_path):
    with pytest.raises(LabelError, match=r"there is no label file 'a\.nii\.gz': save the label again"):
        read_labels(tmp_path / "a.nii.gz", picture(4, 5))
    with pytest.raises(LabelError, match="there is no label file"):
        read_labels(tmp_path, picture(4, 5))


def test_a_label_of_one_slice_for_a_picture(picture, nifti):
    array = np.zeros((7, 5, 1), np.uint8)
    array[6, 1, 0] = 3
    for shape in ((7, 5, 1), (7, 5)):
        found = read_labels(nifti(array.reshape(shape), np.eye(4)), picture(7, 5))
        assert np.argwhere(found.array).tolist() == [[6, 1, 0]]
    with pytest.raises(LabelError, match="it is 7 x 5 x 2 and its image 7 x 5 x 1"):
        read_labels(nifti(np.ones((7, 5, 2), np.uint8), np.eye(4)), picture(7, 5))


def test_a_slice_of_a_volume_labels_that_slice(image, nifti):
    """A viewer that shows one slice may save one: the rest of the volume is background."""
    affine, shape = GRIDS["oblique"]
    labels, _ = drawn(affine, shape)
    shifted = affine.copy()
    shifted[:3, 3] = nib.affines.apply_affine(affine, [0, 0, 12])
    found = read_labels(nifti(labels[:, :, 12:13], shifted), image(affine, shape)).array
    np.testing.assert_array_equal(found[:, :, 12], labels[:, :, 12])
    assert not found[:, :, :12].any()
    assert not found[:, :, 13:].any()


@pytest.mark.parametrize(
    ("name", "count", "lost"),
    [
        ("ct/ts_abdomen_ct.nii.gz", 61, 0),
        ("ct/dcmqi_liver_spine_3slices.nii.gz", 2, 0),
        ("ct/deeplesion_000002_abdomen.nii.gz", 1, 0),
        ("mr/brats_0005_t1c.nii.gz", 4, 0),
        ("mr/pyradiomics_breast1.nii.gz", 1, 0),
        ("image2d/dsb_nuclei_512.png", 125, 0),
        # 136, 130 and 118 pieces, less those of 10 pixels or fewer: 5 + 6 + 6 + 7 + 8 + 10, 6 + 8 + 9, and 8.
        ("image2d/isbi_em_00.png", 130, 42),
        ("image2d/isbi_em_05.png", 127, 23),
        ("image2d/isbi_em_10.png", 117, 8),
    ],
)
def test_real_labels(data, name, count, lost):
    image = read_image(data / name, MANY)
    path = data / Path(name).parent / "labels" / "final" / Path(name).name
    found = read_labels(path, image)
    assert found.array.shape == image.shape
    assert len(found.names) == count
    assert sorted(found.names) == np.unique(found.array)[1:].tolist()
    is_volume = image.format == "nifti"
    saved = np.asarray(nib.load(path).dataobj) if is_volume else np.asarray(Image.open(path)).T[..., None]
    assert np.count_nonzero(saved) - np.count_nonzero(found.array) == lost
    assert not found.array[saved == 0].any()
    if not lost:
        np.testing.assert_array_equal(found.array, saved)


def test_the_label_of_another_real_case(data):
    image = read_image(data / "ct/ts_abdomen_ct.nii.gz", MANY)
    with pytest.raises(LabelError, match=r"dcmqi_liver_spine_3slices\.nii\.gz: it lies elsewhere"):
        read_labels(data / "ct/labels/final/dcmqi_liver_spine_3slices.nii.gz", image)


def test_dicom_without_its_suffix_is_known_by_its_mark(data, tmp_path):
    shutil.copy(data / "dicom" / "dcmqi_liver_seg.dcm", tmp_path / "liver")
    image = read_image(data / "dicom" / "dcmqi_ct", MANY)
    assert read_labels(tmp_path / "liver", image).names == {1: "Liver"}
