import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from sample_study.dicom import write_multiframe_ultrasound, write_series

# A turn about all three axes, in RAS, with three spacings.
OBLIQUE = np.array(
    [
        [0.8, -0.36, 0.48, -12.5],
        [0.48, 0.864, -0.152, 30.0],
        [-0.36, 0.352, 0.864, 7.25],
        [0.0, 0.0, 0.0, 1.0],
    ]
) @ np.diag([1.5, 2.0, 4.0, 1.0])


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(-1024, 3000, (7, 5, 4)).astype(np.int16)


def read(folder):
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    return reader.Execute()


@pytest.mark.parametrize("modality", ["CT", "MR", "XA"])
@pytest.mark.parametrize("instances", ["ascending", "descending"])
def test_another_reader_sees_the_same_voxels_in_the_same_places(tmp_path, image, modality, instances):
    write_series(tmp_path, image, OBLIQUE, modality=modality, instances=instances)
    seen = read(tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(seen).T, image)
    for index in ((0, 0, 0), (6, 4, 3), (2, 3, 1)):
        left, back, up = seen.TransformIndexToPhysicalPoint(index)
        assert [-left, -back, up] == pytest.approx((OBLIQUE @ [*index, 1])[:3], abs=1e-3)


def test_the_slices_of_a_left_handed_volume_are_read_from_the_other_end(tmp_path, image):
    write_series(tmp_path, image, np.diag([-1.0, -1.0, -2.0, 1.0]))
    seen = read(tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(seen).T, image[:, :, ::-1])
    assert seen.GetOrigin() == (0, 0, -6)


@pytest.mark.parametrize(("instances", "numbers"), [("ascending", [1, 2, 3]), ("descending", [3, 2, 1])])
@pytest.mark.parametrize("step", [2.0, -2.0], ids=["along", "against"])
def test_instance_numbers_rise_or_fall_along_the_normal(tmp_path, image, instances, numbers, step):
    series = write_series(tmp_path, image[..., :3], np.diag([-1.0, -1.0, step, 1.0]), instances=instances)
    files = [pydicom.dcmread(file) for file in series.files]
    files.sort(key=lambda dataset: dataset.ImagePositionPatient[2])
    assert [dataset.InstanceNumber for dataset in files] == numbers


def test_tags_are_those_that_were_asked_for(tmp_path, image):
    first = write_series(tmp_path / "a", image, OBLIQUE, window=(40, 400), patient="p1", description="d")
    second = write_series(tmp_path / "b", image, OBLIQUE, modality="MR", study_uid=first.study_uid)
    dataset = pydicom.dcmread(first.files[0])
    assert (dataset.WindowCenter, dataset.WindowWidth) == (40, 400)
    assert (dataset.PatientID, dataset.SeriesDescription, dataset.Modality) == ("p1", "d", "CT")
    assert dataset.SeriesInstanceUID == first.series_uid != second.series_uid
    other = pydicom.dcmread(second.files[0])
    assert other.StudyInstanceUID == first.study_uid
    assert other.SOPClassUID.name == "MR Image Storage"
    assert dataset.SOPClassUID.name == "CT Image Storage"


@pytest.mark.parametrize("shape", [(5, 33, 41), (5, 33, 41, 3)], ids=["grey", "colour"])
def test_frames_come_back_from_one_ultrasound_file(tmp_path, shape):
    frames = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    series = write_multiframe_ultrasound(tmp_path, frames, frame_time_ms=33.3, spacing_mm=0.5)
    (file,) = series.files
    dataset = pydicom.dcmread(file)
    assert np.array_equal(dataset.pixel_array, frames)
    assert dataset.SOPClassUID.name == "Ultrasound Multi-frame Image Storage"
    assert float(dataset[dataset.FrameIncrementPointer].value) == 33.3
    assert dataset.SequenceOfUltrasoundRegions[0].PhysicalDeltaX == 0.05
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(file))), frames)


def test_what_a_series_cannot_hold_is_refused(tmp_path, image):
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    with pytest.raises(ValueError, match="shears"):
        write_series(tmp_path, image, sheared)
    with pytest.raises(ValueError, match="32767"):
        write_series(tmp_path, np.full((2, 2, 2), 40000), np.eye(4))
    with pytest.raises(ValueError, match=r"\(I, J, K\)"):
        write_series(tmp_path, image[0], np.eye(4))
    with pytest.raises(ValueError, match="uint8"):
        write_multiframe_ultrasound(tmp_path, np.zeros((2, 3, 4, 2), np.uint8))
