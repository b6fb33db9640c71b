"""Any label file: the right reader, a read-only label map, one kind of error; and the real ones."""

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from lib.errors import LabelError
from lib.images.medical_image import LPS_IDENTITY
from lib.images.reading import read_image
from lib.images.writing import VOLUME_EXTENSIONS, write_mask
from lib.labels.reading import read_labels
from tests.unit.conftest import CODES, SCANNED, write_forms
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


SHEARED = np.array([[1, 0.3, 0, 5], [0, 1, 0.4, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
LABEL = np.zeros((9, 8, 7), np.uint8, order="F")
LABEL[1:4, 2:4, 3:7] = 1
LABEL[5:8, 1, 2] = 2


@pytest.fixture
def paths(tmp_path):
    """Function that writes an image for each pair of codes of its sform and qform."""

    def write(codes=CODES):
        for number, pair in enumerate(codes):
            (tmp_path / str(number)).mkdir(exist_ok=True)
            yield write_forms(tmp_path / str(number) / "image.nii.gz", LABEL.astype(np.int16), pair)

    return write


def reads_back(label, path):
    np.testing.assert_array_equal(read_labels(label, read_image(path, MANY)).array, LABEL)


def test_a_label_that_an_itk_program_drew_is_on_its_voxels(paths):
    for path in paths():
        label = sitk.GetImageFromArray(LABEL.T)
        label.CopyInformation(sitk.ReadImage(str(path)))
        for extension in (".nii.gz", ".nrrd", ".mha"):
            sitk.WriteImage(label, str(path.with_name(f"label{extension}")))
            reads_back(path.with_name(f"label{extension}"), path)


def test_a_label_of_a_part_of_the_image_is_on_its_voxels(paths):
    for path in paths(CODES[1:]):
        label = sitk.GetImageFromArray(LABEL.T)
        label.CopyInformation(sitk.ReadImage(str(path)))
        sitk.WriteImage(label[1:9, 1:5, 2:], str(path.with_name("label.nrrd")))
        reads_back(path.with_name("label.nrrd"), path)


def test_a_label_that_a_nibabel_program_made_is_on_its_voxels(paths):
    for path in paths():
        for is_whole_header in (False, True):
            image = nib.load(path)
            header = image.header if is_whole_header else None
            nib.Nifti1Image(LABEL, image.affine, header, dtype=np.uint8).to_filename(
                path.with_name("label.nii.gz")
            )
            reads_back(path.with_name("label.nii.gz"), path)


def test_an_answer_is_on_the_voxels_of_its_image_for_itk(paths):
    for path in paths():
        for extension in VOLUME_EXTENSIONS:
            answer = write_mask(LABEL, read_image(path, MANY), extension)
            try:
                itk, shown = sitk.ReadImage(str(answer)), sitk.ReadImage(str(path))
                for index in [(0, 0, 0), (8, 0, 0), (0, 7, 0), (0, 0, 6), (3, 1, 2)]:
                    there = shown.TransformIndexToPhysicalPoint(index)
                    assert itk.TransformIndexToPhysicalPoint(index) == pytest.approx(there, abs=1e-4)
                reads_back(answer, path)
            finally:
                answer.unlink()


def test_nibabel_places_a_nifti_answer_where_itk_does(paths):
    for path in paths():
        for extension in (".nii", ".nii.gz"):
            image = read_image(path, MANY)
            answer = write_mask(LABEL, image, extension)
            try:
                header = nib.load(answer).header
                assert header.get_sform(coded=True)[0] == pytest.approx(image.affine, abs=1e-5)
                assert header.get_qform(coded=True)[0] == pytest.approx(image.affine, abs=1e-5)
            finally:
                answer.unlink()


@pytest.mark.parametrize("codes", [(1, 0), (2, 0), (1, 1)])
def test_an_answer_of_a_sheared_image_reads_back(tmp_path, codes):
    path = write_forms(tmp_path / "image.nii", LABEL.astype(np.int16), codes, sform=SHEARED)
    for extension in VOLUME_EXTENSIONS:
        answer = write_mask(LABEL, read_image(path, MANY), extension)
        try:
            reads_back(answer, path)
        finally:
            answer.unlink()


def test_a_label_in_millimetres_fits_an_image_in_micrometres(tmp_path):
    path = write_forms(tmp_path / "image.nii", LABEL.astype(np.int16), (1, 1), sform=SCANNED, xyzt_units=3)
    label = sitk.GetImageFromArray(LABEL.T)
    label.CopyInformation(sitk.ReadImage(str(path)))
    sitk.WriteImage(label, str(tmp_path / "label.nii.gz"))
    reads_back(tmp_path / "label.nii.gz", path)
    nib.Nifti1Image(LABEL, nib.load(path).affine).to_filename(tmp_path / "label.nii.gz")
    reads_back(tmp_path / "label.nii.gz", path)


def test_geometry_and_values(image, tmp_path):
    array = np.zeros((4, 6, 5), np.uint32)  # slices, rows, columns
    array[3, 1, 4] = 9
    label = sitk.GetImageFromArray(array)
    label.SetSpacing([0.5, 2.0, 3.0])
    label.SetOrigin([10.0, -20.0, 30.0])
    label.SetDirection([0, 1, 0, -1, 0, 0, 0, 0, 1])
    sitk.WriteImage(label, str(tmp_path / "a.mha"))
    x, y, z = label.TransformIndexToPhysicalPoint((4, 1, 3))
    affine = np.eye(4)
    affine[:3, 3] = [-x - 2, -y - 3, z - 1]
    found = read_labels(tmp_path / "a.mha", image(affine, (9, 8, 7)))
    assert found.array[2, 3, 1] == 9


def test_a_2d_label_of_a_picture(picture, tmp_path):
    array = np.zeros((6, 5), np.uint8)
    array[4, 1] = 2
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.mhd"))
    assert np.argwhere(read_labels(tmp_path / "a.mhd", picture(5, 6)).array).tolist() == [[1, 4, 0]]


def test_colours_are_refused(image, tmp_path):
    colours = sitk.GetImageFromArray(np.ones((2, 3, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "a.mha"))
    with pytest.raises(LabelError, match=r"a\.mha: its voxels are colours"):
        read_labels(tmp_path / "a.mha", image(LPS_IDENTITY, (4, 3, 2)))
