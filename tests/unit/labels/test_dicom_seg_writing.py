"""DICOM segmentations that are written: the headers of their series, and what other readers find."""

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from lib.errors import LabelError
from lib.images.reading import read_image
from lib.labels.dicom_seg_writing import describe_segments, source_headers, write_dicom_seg
from lib.labels.reading import read_labels
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


@pytest.fixture
def series(tmp_path):
    affine, _ = GRIDS["oblique"]
    made = write_series(tmp_path / "a", np.zeros((8, 6, 5), np.int16), affine, instances="descending")
    return made, read_image(tmp_path / "a", MANY)


def test_each_header_knows_its_slice_in_any_order(series):
    made, image = series
    shuffled = [made.files[k] for k in (3, 0, 4, 1, 2)]
    sources = source_headers(shuffled, image)
    assert (sources.slices, sources.is_placed) == ([3, 0, 4, 1, 2], True)
    assert {header.SpacingBetweenSlices for header in sources.headers} == {1.5}


def test_another_series_is_refused(series, tmp_path):
    made, image = series
    affine = GRIDS["oblique"][0].copy()
    affine[:3, 3] += 5
    other = write_series(tmp_path / "b", np.zeros((8, 6, 5), np.int16), affine)
    with pytest.raises(LabelError, match="lies elsewhere than the DICOM series"):
        source_headers(other.files, image)
    larger = write_series(tmp_path / "c", np.zeros((9, 6, 5), np.int16), affine)
    with pytest.raises(LabelError, match="slices of different sizes"):
        source_headers(larger.files, image)
    with pytest.raises(LabelError, match="lies elsewhere"):
        source_headers([*made.files[:4], made.files[0]], image)


@pytest.mark.parametrize("many", [False, True])
def test_a_tilted_gantry_is_saved_slice_by_slice(series, tmp_path, many):
    made, _ = series
    for number, file in enumerate(made.files):
        dataset = pydicom.dcmread(file)
        x, y, z = dataset.ImagePositionPatient
        along = np.array(dataset.ImageOrientationPatient[3:], dtype=float) * 0.6 * number
        dataset.ImagePositionPatient = [x + along[0], y + along[1], z + along[2]]
        dataset.save_as(file)
    files = [many_frames(made.files, tmp_path / "many.dcm")] if many else made.files
    image = read_image(files[0] if many else tmp_path / "a", MANY)
    for used in ([0, 1, 2, 3, 4], [0, 3], [2]):
        labels = np.zeros(image.shape, np.uint8)
        labels[2:5, 1:4, used] = 1
        dataset = written(tmp_path, labels, image, files, {1: "liver"})
        for group in dataset.PerFrameFunctionalGroupsSequence:
            x, y, z = (float(value) for value in group.PlanePositionSequence[0].ImagePositionPatient)
            found = np.linalg.inv(image.affine) @ [-x, -y, z, 1]
            assert min(np.abs(found - [0, 0, k, 1]).max() for k in used) < 1e-3
        np.testing.assert_array_equal(read_labels(tmp_path / "label.dcm", image).array, labels)


PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@pytest.mark.parametrize("absent", [PLACE[:1], PLACE[1:2], PLACE[2:], PLACE])
def test_a_series_without_a_place_is_saved_on_the_grid_that_it_was_opened_on(tmp_path, caplog, absent):
    series, _ = opened(tmp_path, *GRIDS["LPS"])
    for file in series.files:
        dataset = pydicom.dcmread(file)
        for name in absent:
            delattr(dataset, name)
        dataset.save_as(file)
    image = read_image(tmp_path / "series", MANY)
    labels = np.zeros(image.shape, np.uint8)
    labels[3:9, 4:7, 1:4], labels[20:22, 3, 4] = 1, 2
    for files in (series.files, series.files[::-1]):
        dataset = written(tmp_path, labels, image, files)
        assert absent[0] in caplog.text
        np.testing.assert_array_equal(read_labels(tmp_path / "label.dcm", image).array, labels)
        # Each frame refers to the file whose pixels it was drawn on.
        uids = {pydicom.dcmread(file).SOPInstanceUID: file for file in files}
        for group in dataset.PerFrameFunctionalGroupsSequence:
            source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            number = int(pydicom.dcmread(uids[source]).InstanceNumber)
            assert labels[:, :, number - 1].any()


def test_stills_of_one_series(tmp_path, ultrasound):
    for number in range(4):
        path = ultrasound(tmp_path / f"{number}.dcm", np.full((1, 20, 30, 3), 40 * number, np.uint8))
        dataset = pydicom.dcmread(path)
        del dataset.NumberOfFrames
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3", "1.2"
        dataset.InstanceNumber = number + 1
        dataset.save_as(path)
    image = read_image(tmp_path, MANY)
    assert image.shape == (30, 20, 4)
    labels = np.zeros(image.shape, np.uint8)
    labels[3:9, 4:7, 1], labels[20, 3, 3] = 1, 2
    (tmp_path / "out").mkdir()
    dataset = written(tmp_path / "out", labels, image, sorted(tmp_path.glob("*.dcm")))
    assert dataset.pixel_array.shape[0] == 2
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "label.dcm", image).array, labels)


DATES = {
    ("StudyDate", "20200000"): "",
    ("StudyDate", "2020-01-01"): "20200101",
    ("StudyDate", "unknown"): "",
    ("PatientBirthDate", "19500000"): "",
    ("PatientBirthDate", "0"): "",
    ("StudyTime", "12:00:00"): "120000",
    ("StudyTime", "noon"): "",
    ("StudyTime", "250000"): "",
    ("StudyDate", "20200229"): "20200229",
    ("StudyTime", "115959.5"): "115959.5",
}


def test_dates_as_anonymizers_leave_them(tmp_path, caplog):
    series, image = opened(tmp_path, *GRIDS["LPS"])
    labels, _ = drawn(image.affine, image.shape)
    for (name, text), kept in DATES.items():
        for file in series.files:
            dataset = pydicom.dcmread(file)
            raw = RawDataElement(Tag(name), dictionary_VR(name), len(text), text.encode(), 0, False, True)
            dataset._dict[Tag(name)] = raw
            dataset.save_as(file)
        dataset = written(tmp_path, labels, image, series.files)
        assert str(dataset.get(name) or "") == kept, (name, text)
        assert (repr(text) in caplog.text) == (kept != text)
        np.testing.assert_array_equal(read_labels(tmp_path / "label.dcm", image).array, labels)


def test_frames_of_a_loop_have_no_place(tmp_path):
    made = write_multiframe_ultrasound(tmp_path / "a", np.zeros((4, 6, 8), np.uint8))
    sources = source_headers(made.files, read_image(made.files[0], MANY))
    assert (sources.slices, sources.is_placed) == ([0, 1, 2, 3], False)
    other = write_multiframe_ultrasound(tmp_path / "b", np.zeros((3, 6, 8), np.uint8))
    with pytest.raises(LabelError, match="4 slices and the DICOM file 3 frames"):
        source_headers(other.files, read_image(made.files[0], MANY))


WHAT_DICOM_HAS_A_CODE_FOR_GETS_IT = [
    ("liver", "123037004", "10200004"),
    ("Left kidney", "123037004", "64033007"),
    ("left_ventricle", "123037004", "21814001"),
    ("blood vessel", "123037004", "59820001"),
    ("tumor", "49755003", "108369006"),
    ("Tumour", "49755003", "108369006"),
    ("lesion", "49755003", "52988006"),
    ("nodule", "49755003", "27925004"),
    ("muscle", "85756007", "71616004"),
    ("my own thing", "85756007", "85756007"),
    ("", "85756007", "85756007"),
]


def test_what_dicom_has_a_code_for_gets_it():
    for name, category, kind in WHAT_DICOM_HAS_A_CODE_FOR_GETS_IT:
        (segment,) = describe_segments({1: name})
        assert segment.type.scheme_designator == segment.category.scheme_designator == "SCT"
        assert (segment.category.value, segment.type.value) == (category, kind)


def test_what_the_client_says_comes_first():
    attribute = {
        "SegmentedPropertyCategoryCodeSequence": {
            "CodeValue": "M-01000",
            "CodingSchemeDesignator": "SRT",
            "CodeMeaning": "Morphologically Altered Structure",
        },
        "SegmentedPropertyTypeCodeSequence": [
            {"CodeValue": "M-03000", "CodingSchemeDesignator": "SRT", "CodeMeaning": "Mass"}
        ],
    }
    info = [
        {"name": "liver", "segmentAttribute": attribute, "color": [255, 0, 0, 128], "description": "left"}
    ]
    (segment,) = describe_segments({3: "liver"}, info)
    assert (segment.value, segment.type.meaning, segment.category.value) == (3, "Mass", "M-01000")
    assert (segment.colour, segment.description) == ((255, 0, 0), "left")


def test_half_of_a_code_is_none():
    attribute = {"SegmentedPropertyTypeCodeSequence": {"CodeValue": "1"}}
    (segment,) = describe_segments({1: "spleen"}, [{"name": "spleen", "segmentAttribute": attribute}])
    assert segment.type.value == "78961009"


@pytest.mark.parametrize("colour", [None, "red", [1, 2], [None, 1, 2], {}])
def test_segments_without_a_colour_get_different_ones(colour):
    info = [{"name": "a", "color": colour}, "odd", {"name": "b"}]
    first, second = describe_segments({2: "b", 1: "a"}, info)
    assert (first.name, second.name) == ("a", "b")
    assert first.colour != second.colour


@pytest.mark.parametrize(
    ("rgb", "lab"),
    # L* 0 to 100, a* and b* -128 to 127 as 0 to 65535 (PS3.3, C.10.7.1.1); CIELab of D65.
    [([255, 255, 255], (100, 0, 0)), ([0, 0, 0], (0, 0, 0)), ([255, 0, 0], (53.24, 80.09, 67.20))],
)
def test_a_colour_is_lab(rgb, lab):
    (segment,) = describe_segments({1: "a"}, [{"name": "a", "color": rgb}])
    low, high = (0, -128, -128), (100, 127, 127)
    expected = [(v - a) / (b - a) * 65535 for v, a, b in zip(lab, low, high, strict=True)]
    assert segment.lab == pytest.approx(expected, abs=20)


def test_a_name_is_cut_to_what_dicom_holds():
    assert len(describe_segments({1: "x" * 90})[0].name) == 64


def test_a_name_is_one_text():
    assert describe_segments({1: r"GTV\CTV"})[0].name == "GTV/CTV"
