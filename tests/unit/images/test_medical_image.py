"""What an opened image knows, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from lib.errors import ImageError, ImageTooLargeError, PromptError
from lib.images.medical_image import Voxels, content_digest, make_image, require_size


def image_of(array, affine=None, **known):
    return make_image(Voxels(array, np.eye(4) if affine is None else affine, **known), Path("a.nii"), "nifti")


VOXELS_ARE_KEPT_IN_THE_SMALLEST_TYPE_THA = [
    ([0, 1], np.bool_, np.uint8),
    ([0, 255], np.uint8, np.uint8),
    ([-5, 5], np.int8, np.int8),
    ([-1000, 3000], ">i2", np.int16),
    ([-1000, 3000], np.int32, np.int16),
    ([0, 60000], np.int64, np.uint16),
    ([0, 70000], np.uint32, np.int32),
    ([0, 2**32 - 1], np.uint32, np.uint32),
    ([0, 2**40], np.int64, np.float32),
    ([0, 0.5], np.float64, np.float32),
    ([0, 0.5], np.float16, np.float32),
    ([0, 0.5], ">f4", np.float32),
]


def test_voxels_are_kept_in_the_smallest_type_that_holds_them():
    for values, dtype, kept in VOXELS_ARE_KEPT_IN_THE_SMALLEST_TYPE_THA:
        array = np.array(values, dtype).reshape(2, 1, 1)
        image = image_of(array)
        assert image.array.dtype == kept
        assert image.array.dtype.isnative
        assert image.array.ravel().tolist() == [float(value) for value in values]


def test_a_float_that_float32_cannot_hold_is_refused():
    with pytest.raises(ImageError, match="1 infinite"):
        image_of(np.array([[[1e300, 0.0]]]))


def test_complex_voxels_are_refused():
    with pytest.raises(ImageError, match="complex64 cannot be shown"):
        image_of(np.zeros((2, 2, 2), np.complex64))


def test_memory_order_does_not_change_the_digest():
    array = np.random.default_rng(0).integers(0, 9, (4, 5, 6)).astype(np.int16)
    assert content_digest(np.asfortranarray(array)) == content_digest(np.ascontiguousarray(array))
    colours = np.random.default_rng(0).integers(0, 9, (4, 5, 6, 3)).astype(np.uint8)
    assert content_digest(np.asfortranarray(colours)) == content_digest(colours)


def test_the_type_is_part_of_the_digest():
    zeros = np.zeros((4, 4, 4), np.int16)
    assert content_digest(zeros) != content_digest(zeros.astype(np.uint16))


def test_the_window_is_chosen_once():
    image = image_of(np.random.default_rng(0).normal(size=(9, 9, 9)))
    assert image.window() is image.window()
    assert image.window([1, 2]) != image.window()


def test_colours_are_levels_and_a_request_still_counts():
    image = image_of(np.full((2, 2, 1, 3), 5, np.uint8), dicom_window=(0.0, 9.0))
    assert (image.window().low, image.window().high, image.window().source) == (0.0, 255.0, "levels")
    assert image.window([0, 10]).high == 10
    with pytest.raises(PromptError):
        image.window([10, 0])


def test_an_axis_without_extent_gets_a_millimetre():
    # A 2-D NIfTI file may say 0 for its third spacing.
    affine = np.diag([0.5, 0.5, 0.0, 1.0])
    assert image_of(np.zeros((2, 2, 1)), affine).affine == pytest.approx(np.diag([0.5, 0.5, 1.0, 1.0]))


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.ones((4, 4))])
def test_a_geometry_that_cannot_be_inverted_is_refused(affine):
    with pytest.raises(ImageError, match=r"geometry cannot be used.*set the spacing"):
        image_of(np.zeros((2, 2, 2)), affine)


def test_sizes():
    require_size((4, 5, 6), 120)
    with pytest.raises(ImageTooLargeError, match="4 x 5 x 6 = 120 voxels"):
        require_size((4, 5, 6), 119)
    with pytest.raises(ImageError, match="4 x 0 x 6"):
        require_size((4, 0, 6), 119)
