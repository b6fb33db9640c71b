"""DICOM segmentations, written by highdicom."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless, generate_uid

from lib.errors import LabelError
from lib.images.medical_image import LPS_IDENTITY
from lib.images.reading import read_image
from lib.labels import read_labels
from tests.unit.labels.conftest import GRIDS, changed, drawn

MANY = 2**29
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@pytest.mark.parametrize("grid", ["RAS", "LPS", "sagittal", "oblique"])
def test_on_the_series_own_grid(image, ct, seg, grid):
    affine, shape = GRIDS[grid]
    labels, _ = drawn(affine, shape)
    found = read_labels(seg(labels, ct(affine, shape)), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)
    named = {1: "liver", 2: "spleen"}
    assert found.names == {value: named[value] for value in np.unique(labels).tolist() if value}


@pytest.mark.parametrize("compression", [None, RLELossless])
def test_fractions_from_one_half_on(image, ct, seg, compression):
    affine, shape = GRIDS["LPS"][0], (12, 10, 4)
    fractions = np.zeros((*shape, 2))
    fractions[1:5, 2:4, 1:3, 0], fractions[3, 3, 2, 0] = 0.6, 0.45
    fractions[8, 7, :, 1], fractions[9, 7, :, 1] = 0.5, 0.1
    more = {"transfer_syntax_uid": compression} if compression else {}
    path = seg(fractions, ct(affine, shape), kind="FRACTIONAL", max_fractional_value=100, **more)
    found = read_labels(path, image(affine, shape)).array
    np.testing.assert_array_equal(found == 1, fractions[..., 0] > 0.5)
    np.testing.assert_array_equal(found == 2, fractions[..., 1] >= 0.5)


def test_segments_that_overlap_are_all_there_the_smaller_one_on_top(image, ct, seg):
    affine, shape = GRIDS["LPS"][0], (12, 10, 6)
    segments = np.zeros((*shape, 2), np.uint8)
    segments[4:6, 4:6, 2:4, 0] = 1
    segments[1:11, 1:9, 1:5, 1] = 1
    found = read_labels(seg(segments, ct(affine, shape), names=("lesion", "liver")), image(affine, shape))
    assert found.names == {1: "lesion", 2: "liver"}
    np.testing.assert_array_equal(found.array == 1, segments[..., 0] > 0)
    np.testing.assert_array_equal(found.array == 2, (segments[..., 1] > 0) & (segments[..., 0] == 0))


def test_a_label_map_segmentation(image, ct, seg):
    """Newer servers write it; made here of a fractional one, whose frames have bytes too."""
    affine, shape = GRIDS["LPS"][0], (12, 10, 3)
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 3, 1], labels[7, 8, 2] = 2, 1
    path = seg(
        np.ones(shape), ct(affine, shape), names=("liver",), kind="FRACTIONAL", omit_empty_frames=False
    )
    dataset = pydicom.dcmread(path)
    for item in dataset.PerFrameFunctionalGroupsSequence:
        del item.SegmentIdentificationSequence
    second = pydicom.Dataset()
    second.SegmentNumber, second.SegmentLabel = 2, "spleen"
    dataset.SegmentSequence = [dataset.SegmentSequence[0], second]
    dataset.SOPClassUID, dataset.SegmentationType = LABEL_MAP, "LABELMAP"
    dataset.PixelData = np.ascontiguousarray(labels.T).tobytes()
    dataset.save_as(path)
    found = read_labels(path, image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)
    assert found.names == {1: "liver", 2: "spleen"}


def test_frames_without_a_position_are_those_that_they_refer_to(image, ct, seg):
    """As of an ultrasound loop, where the third axis is time."""
    shape = (12, 10, 5)
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 3, 3], labels[7, 8, 1] = 1, 1
    path = seg(labels, ct(np.eye(4), shape), names=("a",))
    dataset = pydicom.dcmread(path)
    for item, frame in zip(dataset.PerFrameFunctionalGroupsSequence, (1, 3), strict=True):
        del item.PlanePositionSequence
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedFrameNumber = frame + 1
    dataset.save_as(path)
    loop = image(LPS_IDENTITY, shape, file_format="dicom")
    np.testing.assert_array_equal(read_labels(path, loop).array, labels)
    with pytest.raises(LabelError, match="neither a position nor the number of one of the image's 3 frames"):
        read_labels(path, image(LPS_IDENTITY, (12, 10, 3), file_format="dicom"))


def test_a_series_elsewhere_in_space_is_refused(image, case):
    affine, shape = GRIDS["LPS"]
    away = affine.copy()
    away[2, 3] += 500
    with pytest.raises(LabelError, match=r"label\.dcm: it lies elsewhere in space"):
        read_labels(case[0], image(away, shape))


@pytest.mark.parametrize("keeps", ["folder", "folder beside", "file"])
def test_another_frame_of_reference_is_refused(tmp_path, ct_slice, ct, seg, nifti, keeps):
    """Also where the series was converted by MONAI Label, which keeps it beside its volume."""
    (tmp_path / "series").mkdir()
    for k in range(3):
        stored = np.zeros((10, 12), np.uint16)
        uid = generate_uid()
        ct_slice(
            tmp_path / "series" / f"{k}.dcm",
            stored,
            z=2.5 * k,
            FrameOfReferenceUID="1.2.9",
            SOPInstanceUID=uid,
        )
    opened = read_image(tmp_path / "series", MANY)
    if keeps == "folder beside":
        opened = read_image(nifti(np.zeros(opened.shape, np.int16), opened.affine, "series.nii.gz"), MANY)
    if keeps == "file":
        opened = read_image(tmp_path / "series" / "0.dcm", MANY)
    labels = np.ones(opened.shape, np.uint8)
    found = read_labels(seg(labels, ct(opened.affine, opened.shape, "1.2.9"), names=("a",)), opened)
    assert found.array.all()
    path = seg(labels, ct(opened.affine, opened.shape, "1.2.8"), names=("a",))
    with pytest.raises(
        LabelError, match=r"frame of reference 1\.2\.8 and its image lies in 1\.2\.9: .*another series"
    ):
        read_labels(path, opened)


def test_other_dicom_files_are_refused(tmp_path, ct_slice, case):
    path = ct_slice(tmp_path / "a.dcm", np.ones((4, 5), np.uint16), z=0.0)
    with pytest.raises(LabelError, match=r"a\.dcm: it is DICOM of modality CT and no segmentation: export"):
        read_labels(path, case[1])


def test_a_file_that_is_cut_off(case):
    path, opened = case
    content = pydicom.dcmread(path).PixelData
    with pytest.raises(LabelError, match=r"label\.dcm: the file is cut off: its header promises \d+ bytes"):
        read_labels(changed(path, PixelData=content[: len(content) // 2]), opened)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(LabelError, match=r"label\.dcm"):
        read_labels(path, opened)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(LabelError, match=r"label\.dcm"):
        read_labels(path, opened)


def test_fewer_frames_than_the_header_promises(image, ct, seg):
    affine, shape = GRIDS["LPS"][0], (12, 10, 4)
    path = seg(np.ones(shape), ct(affine, shape), names=("a",), kind="FRACTIONAL")
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    changed(path, PixelData=encapsulate([bytes(64)] * 3))
    with pytest.raises(LabelError, match=r"label\.dcm"):
        read_labels(path, image(affine, shape))


def test_a_segmentation_without_a_voxel_says_that_there_is_nothing(case):
    path, opened = case
    empty = bytes(len(pydicom.dcmread(path).PixelData))
    found = read_labels(changed(path, PixelData=empty), opened)
    assert (found.names, found.array.shape, found.array.any()) == ({}, opened.shape, False)


def test_a_real_one_as_dcmqi_wrote_it(data):
    opened = read_image(data / "dicom" / "dcmqi_ct", MANY)
    found = read_labels(data / "dicom" / "dcmqi_liver_seg.dcm", opened)
    # The same case, converted to NIfTI by others: 1 is the liver.
    saved = nib.load(data / "ct" / "labels" / "final" / "dcmqi_liver_spine_3slices.nii.gz")
    np.testing.assert_array_equal(found.array == 1, np.asarray(saved.dataobj) == 1)
    assert np.count_nonzero(found.array) == 107098
    assert found.names == {1: "Liver"}
    as_nifti = read_image(data / "ct" / "dcmqi_liver_spine_3slices.nii.gz", MANY)
    again = read_labels(data / "dicom" / "dcmqi_liver_seg.dcm", as_nifti)
    np.testing.assert_array_equal(again.array, found.array)
