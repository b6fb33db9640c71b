"""DICOM segmentations as labels: segments, frames and where they lie."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixel_data_handlers.util import pack_bits
from pydicom.uid import RLELossless, generate_uid

from lib.errors import LabelError
from lib.images.medical_image import LPS_IDENTITY
from lib.images.reading import read_image
from lib.labels.reading import read_labels
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


def shuffled(path, order):
    """Puts the frames into another order, or leaves some out."""
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array[order]
    items = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = [items[index] for index in order]
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = pack_bits(frames) if dataset.BitsAllocated == 1 else frames.tobytes()
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("grid", ["LPS", "oblique"])
def test_frames_in_any_order_and_without_the_empty_ones(image, ct, seg, grid):
    affine, shape = GRIDS[grid]
    labels, _ = drawn(affine, shape)
    path = seg(labels, ct(affine, shape))
    count = pydicom.dcmread(path).NumberOfFrames
    assert count < 2 * shape[2]
    shuffled(path, np.random.default_rng(1).permutation(count).tolist())
    np.testing.assert_array_equal(read_labels(path, image(affine, shape)).array, labels)


def test_slices_that_run_the_other_way_than_the_images(image, ct, seg):
    affine, shape = GRIDS["oblique"]
    labels, _ = drawn(affine, shape)
    turn = np.eye(4)
    turn[2, 2], turn[2, 3] = -1, shape[2] - 1
    path = seg(labels[:, :, ::-1], ct(affine @ turn, shape))
    np.testing.assert_array_equal(read_labels(path, image(affine, shape)).array, labels)


@pytest.mark.parametrize("states", ["spacing", "thickness", "nothing"])
def test_every_second_slice_only(image, ct, seg, states):
    """The gap is twice the spacing, and a slice without a frame is background all the same."""
    affine, shape = GRIDS["LPS"]
    labels = np.zeros(shape, np.uint8)
    labels[10:20, 5:30, 4:20:2] = 1
    path = seg(labels, ct(affine, shape), names=("liver",))
    dataset = pydicom.dcmread(path)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if "SpacingBetweenSlices" in measures and states != "spacing":
        del measures.SpacingBetweenSlices
    if states == "nothing":
        measures.SliceThickness = None
    dataset.save_as(path)
    np.testing.assert_array_equal(read_labels(path, image(affine, shape)).array, labels)


def test_every_second_slice_of_another_grid(image, ct, seg):
    """Only the file itself can say then how thick its slices are."""
    (affine, shape), (grid, size) = GRIDS["sagittal"], GRIDS["LPS"]
    labels = np.zeros(size, np.uint8)
    labels[10:30, 5:40, 4:20:2] = 1
    path = seg(labels, ct(grid, size), names=("liver",))
    dataset = pydicom.dcmread(path)
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 1.5
    dataset.save_as(path)
    found = read_labels(path, image(affine, shape)).array
    inside = nib.affines.apply_affine(np.linalg.inv(grid) @ affine, np.stack(np.indices(shape), axis=-1))
    sure = (np.abs(inside % 1 - 0.5) > 0.05).all(axis=-1)
    nearest = np.rint(inside).astype(int)
    sure &= ((nearest >= 0) & (nearest < size)).all(axis=-1)
    np.testing.assert_array_equal(found[sure], labels[tuple(nearest[sure].T)])
    assert found.any()


@pytest.mark.parametrize("own", ["sagittal", "anisotropic", "oblique"])
def test_frames_on_another_grid_are_at_the_same_millimetres(image, ct, seg, own):
    (affine, shape), (grid, size) = GRIDS["LPS"], GRIDS[own]
    path = seg(drawn(grid, size)[0], ct(grid, size))
    found = read_labels(path, image(affine, shape)).array
    truth, away = drawn(affine, shape)
    inside = nib.affines.apply_affine(np.linalg.inv(grid) @ affine, np.stack(np.indices(shape), axis=-1))
    covered = ((inside > -0.5) & (inside < np.array(size) - 0.5)).all(axis=-1)
    sure = covered & (away > np.linalg.norm(np.linalg.norm(grid[:3, :3], axis=0)) / 2)
    np.testing.assert_array_equal(found[sure], truth[sure])
    assert found[sure].any()


@pytest.mark.parametrize("shape", [(7, 11, 3), (13, 5, 5), (3, 3, 9)])
def test_frames_that_start_within_a_byte(image, ct, seg, shape):
    labels = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    found = read_labels(seg(labels, ct(affine, shape), names=("a",)), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


def test_headers_that_do_not_fit(case):
    path, opened = case
    dataset = pydicom.dcmread(path)
    items = list(dataset.PerFrameFunctionalGroupsSequence)
    with pytest.raises(LabelError, match=rf"describes {len(items) - 1} of its {len(items)} frames"):
        read_labels(changed(path, PerFrameFunctionalGroupsSequence=items[:-1]), opened)
    items[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 7
    with pytest.raises(LabelError, match="do not say which of its segments they show"):
        read_labels(changed(path, PerFrameFunctionalGroupsSequence=items), opened)


def test_frames_of_several_directions_are_refused(case):
    path, opened = case
    items = list(pydicom.dcmread(path).PerFrameFunctionalGroupsSequence)
    turned = pydicom.Dataset()
    turned.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    items[0].PlaneOrientationSequence = [turned]
    with pytest.raises(LabelError, match="several directions or pixel spacings: segment one series"):
        read_labels(changed(path, PerFrameFunctionalGroupsSequence=items), opened)
