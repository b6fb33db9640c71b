"""Labels in NIfTI and MetaImage files."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.errors import LabelError
from lib.images.medical_image import LPS_IDENTITY
from lib.images.reading import read_image
from lib.images.writing import VOLUME_EXTENSIONS, write_mask
from lib.labels import read_labels
from tests.unit.conftest import CODES, SCANNED, write_forms

MANY = 10**9
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
