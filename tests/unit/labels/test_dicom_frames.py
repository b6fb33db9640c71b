"""Frames of DICOM segmentations, in any order, on any grid, or missing."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.pixel_data_handlers.util import pack_bits

from lib.errors import LabelError
from lib.labels import read_labels
from tests.unit.labels.conftest import GRIDS, changed, drawn


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
