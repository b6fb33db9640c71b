"""Segmentations that the server writes, read by highdicom, by pydicom, and by their positions in space."""

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from lib.errors import LabelError
from lib.images.reading import read_image
from lib.labels import read_labels
from lib.labels.dicom_seg_writing import write_dicom_seg
from lib.labels.segments import describe_segments
from sample_study.dicom import write_multiframe_ultrasound, write_series
from tests.unit.conftest import many_frames
from tests.unit.labels.conftest import GRIDS, drawn

MANY = 10**9
NAMES = {1: "liver", 2: "spleen"}
# The same slices, the last one first.
REVERSED = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, GRIDS["LPS"][1][2] - 1], [0, 0, 0, 1]])


def opened(folder, affine, shape, **options):
    """A series of zeros on disk, and as an image."""
    series = write_series(folder / "series", np.zeros(shape, np.int16), affine, **options)
    return series, read_image(folder / "series", MANY)


def written(folder, labels, image, files, names=NAMES):
    segments = describe_segments({value: names[value] for value in np.unique(labels).tolist() if value})
    uid = write_dicom_seg(folder / "label.dcm", labels, image, files, segments)
    dataset = pydicom.dcmread(folder / "label.dcm")
    assert dataset.SeriesInstanceUID == uid
    return dataset


@pytest.mark.parametrize("instances", ["ascending", "descending"])
@pytest.mark.parametrize("grid", [*GRIDS, "slices downwards"])
def test_voxels_are_where_they_were_drawn_in_world_coordinates(tmp_path, grid, instances):
    affine, shape = GRIDS.get(grid, GRIDS["LPS"])
    if grid == "slices downwards":
        affine = affine @ REVERSED
    series, image = opened(tmp_path, affine, shape, instances=instances)
    labels, _ = drawn(image.affine, image.shape)
    dataset = written(tmp_path, labels, image, series.files)
    # Each frame by its own position: the truth is drawn in millimetres, so nothing else has to be right.
    planes = hd.seg.Segmentation.from_dataset(dataset)
    orientation = planes.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = planes.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    count = {1: 0, 2: 0}
    for frame, item in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = item.PlanePositionSequence[0].ImagePositionPatient
        to_world = hd.spatial.PixelToReferenceTransformer(position, orientation, spacing)
        number = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        value = sorted(set(np.unique(labels).tolist()) - {0})[number - 1]
        columns_rows = np.argwhere(frame.T > 0)
        world = to_world(columns_rows) * [-1, -1, 1]
        voxels = np.rint(nib.affines.apply_affine(np.linalg.inv(image.affine), world)).astype(int)
        assert (labels[tuple(voxels.T)] == value).all()
        count[value] += len(voxels)
    assert count == {value: int((labels == value).sum()) for value in (1, 2)}
    np.testing.assert_array_equal(read_labels(tmp_path / "label.dcm", image).array, labels)


def test_highdicom_gives_the_pixels_of_each_source_slice(tmp_path):
    affine, shape = GRIDS["oblique"]
    series, image = opened(tmp_path, affine, shape, instances="descending")
    labels, _ = drawn(image.affine, image.shape)
    written(tmp_path, labels, image, series.files)
    segmentation = hd.seg.segread(tmp_path / "label.dcm")
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in series.files]
    pixels = segmentation.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels.transpose(2, 1, 0), labels)


def test_what_it_says_of_itself(tmp_path):
    series, image = opened(tmp_path, *GRIDS["LPS"], patient="somebody")
    labels = np.zeros(image.shape, np.uint8)
    labels[3, 4, 5], labels[20, 30, 7] = 2, 9
    dataset = written(tmp_path, labels, image, series.files, {2: "spleen", 9: "my thing"})
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert (dataset.Modality, dataset.SegmentationType, dataset.PatientID) == ("SEG", "BINARY", "somebody")
    assert (dataset.StudyInstanceUID, dataset.NumberOfFrames) == (series.study_uid, 2)
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == series.series_uid
    assert [item.SegmentNumber for item in dataset.SegmentSequence] == [1, 2]
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == ["spleen", "my thing"]
    assert dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 1.5
    assert len(dataset.TimezoneOffsetFromUTC) == 5


@pytest.mark.parametrize(
    ("character_set", "patient", "procedure"),
    [
        (None, "Plain^Name", "CT"),
        ("ISO_IR 100", "Müller^Jörg", "Schädel"),
        ("ISO_IR 144", "Иванов^Иван", "почка"),
        ("GB18030", "Wang^XiaoDong=王^小东", "腹部"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "肝臓"),
        ("ISO_IR 192", "Παπαδόπουλος^Γιώργος", "ήπαρ"),
    ],
)
def test_names_of_any_alphabet_are_kept(tmp_path, character_set, patient, procedure):
    series, _ = opened(tmp_path, *GRIDS["LPS"])
    for file in series.files:
        dataset = pydicom.dcmread(file)
        if character_set:
            dataset.SpecificCharacterSet = character_set
        dataset.PatientName = patient
        code = pydicom.Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99LOCAL", procedure
        dataset.ReasonForVisitCodeSequence = dataset.AdmittingDiagnosesCodeSequence = [code]
        dataset.save_as(file)
    image = read_image(tmp_path / "series", MANY)
    names = {1: "печень", 2: "肝脏"}
    dataset = written(tmp_path, drawn(image.affine, image.shape)[0], image, series.files, names)
    assert str(dataset.PatientName) == patient
    assert dataset.AdmittingDiagnosesCodeSequence[0].CodeMeaning == procedure
    assert read_labels(tmp_path / "label.dcm", image).names == names


def test_itk_reads_the_pixels(tmp_path):
    series, image = opened(tmp_path, *GRIDS["LPS"])
    labels, _ = drawn(image.affine, image.shape)
    labels[labels == 2] = 0
    written(tmp_path, labels, image, series.files)
    frames = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "label.dcm")))
    used = labels.any(axis=(0, 1))
    np.testing.assert_array_equal(frames.astype(bool).transpose(2, 1, 0), labels[:, :, used].astype(bool))


def test_a_loop_of_frames(tmp_path):
    series = write_multiframe_ultrasound(tmp_path, np.zeros((5, 20, 30), np.uint8))
    image = read_image(series.files[0], MANY)
    labels = np.zeros(image.shape, np.uint8)
    labels[3:9, 4:7, 1:4], labels[20, 3, 4] = 1, 2
    dataset = written(tmp_path, labels, image, series.files)
    assert "FrameOfReferenceUID" not in dataset
    segmentation = hd.seg.Segmentation.from_dataset(dataset)
    uid = pydicom.dcmread(series.files[0]).SOPInstanceUID
    pixels = segmentation.get_pixels_by_source_frame(
        uid, range(1, 6), combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels.transpose(2, 1, 0), labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "label.dcm", image).array, labels)


@pytest.mark.parametrize("step", [1, -1])
def test_frames_that_lie_in_space(tmp_path, step):
    series, _ = opened(tmp_path, *GRIDS["oblique"])
    file = many_frames(series.files[::step], tmp_path / "many.dcm")
    image = read_image(file, MANY)
    labels, _ = drawn(image.affine, image.shape)
    dataset = written(tmp_path, labels, image, [file])
    assert dataset.FrameOfReferenceUID == pydicom.dcmread(file).FrameOfReferenceUID
    np.testing.assert_array_equal(read_labels(tmp_path / "label.dcm", image).array, labels)
    assert hd.seg.segread(tmp_path / "label.dcm").number_of_segments == 2


def test_a_radiograph(tmp_path, ct_slice):
    file = ct_slice(
        tmp_path / "a.dcm", np.zeros((6, 5)), 0, SOPClassUID="1.2.840.10008.5.1.4.1.1.1", Modality="CR"
    )
    dataset = pydicom.dcmread(file)
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(dataset, name)
    dataset.save_as(file)
    image = read_image(file, MANY)
    labels = np.zeros(image.shape, np.uint8)
    labels[2:4, 1, 0] = 1
    written(tmp_path, labels, image, [file])
    np.testing.assert_array_equal(read_labels(tmp_path / "label.dcm", image).array, labels)


def test_tags_that_a_file_of_the_world_may_lack(tmp_path):
    series, image = opened(tmp_path, *GRIDS["LPS"])
    for file in series.files:
        dataset = pydicom.dcmread(file)
        for name in ("PatientID", "PatientSex", "StudyID", "AccessionNumber", "SliceThickness"):
            delattr(dataset, name)
        del dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator
        dataset.PatientSex = "unknown"
        dataset.TimezoneOffsetFromUTC = "-0330"
        dataset.save_as(file)
    labels, _ = drawn(image.affine, image.shape)
    dataset = written(tmp_path, labels, image, series.files)
    assert (dataset.PatientSex, dataset.TimezoneOffsetFromUTC) == ("", "-0330")
    np.testing.assert_array_equal(read_labels(tmp_path / "label.dcm", image).array, labels)


def test_a_label_without_anything_drawn(tmp_path):
    series, image = opened(tmp_path, *GRIDS["LPS"])
    path, segments = tmp_path / "label.dcm", describe_segments(NAMES)
    write_dicom_seg(path, np.zeros(image.shape, np.uint8), image, series.files, segments)
    found = hd.seg.segread(path)
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == list(NAMES.values())
    # One frame for each class, however many slices there are.
    assert found.pixel_array.shape[0] == len(NAMES)
    assert not found.pixel_array.any()
    assert read_labels(path, image).names == {}


def test_what_cannot_be_a_segmentation_is_refused(tmp_path):
    series, image = opened(tmp_path, *GRIDS["LPS"])
    labels, _ = drawn(image.affine, image.shape)
    path, segments = tmp_path / "label.dcm", describe_segments(NAMES)
    with pytest.raises(LabelError, match=r"the label is \(44, 50, 23\) and its image \(44, 50, 24\)"):
        write_dicom_seg(path, labels[:, :, 1:], image, series.files, segments)
    with pytest.raises(LabelError, match="24 slices and the DICOM series 23"):
        write_dicom_seg(path, labels, image, series.files[1:], segments)
    assert not path.exists()


def test_real_slices_and_the_label_that_somebody_drew_on_them(tmp_path, data):
    image = read_image(data / "dicom" / "dcmqi_ct", MANY)
    truth = read_labels(data / "dicom" / "dcmqi_liver_seg.dcm", image)
    files = sorted((data / "dicom" / "dcmqi_ct").glob("*.dcm"))
    written(tmp_path, truth.array, image, files, truth.names)
    found = read_labels(tmp_path / "label.dcm", image)
    assert found.names == truth.names == {1: "Liver"}
    np.testing.assert_array_equal(found.array, truth.array)
