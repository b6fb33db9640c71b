"""Frames across an axis, and masks back to where they were drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.transforms.frames import ELONGATED, Crop, FrameStack, crops_around
from lib.transforms.windowing import IntensityWindow

LEVELS = IntensityWindow(0.0, 255.0, "levels")
SHAPE = (5, 4, 3)
VOXEL = (3, 1, 2)
# Per slice axis: the frame of the voxel, and its x (first axis in the plane) and y (second).
WHERE = {0: (3, 1, 2), 1: (1, 3, 2), 2: (2, 3, 1)}


def marked(dtype=np.uint8):
    volume = np.zeros(SHAPE, dtype)
    volume[VOXEL] = 200
    return volume


def test_a_voxel_is_at_its_x_and_y():
    for axis in [0, 1, 2]:
        for order in ["C", "F"]:
            t, x, y = WHERE[axis]
            stack = FrameStack(np.asarray(marked(), order=order), axis, LEVELS)
            sides = [side for other, side in enumerate(SHAPE) if other != axis]
            assert (len(stack), stack.width, stack.height) == (SHAPE[axis], *sides)
            for index, frame in enumerate(stack):
                assert frame.shape == (stack.height, stack.width, 3)
                assert frame.dtype == np.uint8
                assert frame.flags.c_contiguous
                expected = [[y, x, channel] for channel in range(3)] if index == t else []
                assert np.argwhere(frame == 200).tolist() == expected


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_goes_back_to_its_voxel(axis):
    t, x, y = WHERE[axis]
    stack = FrameStack(marked(), axis, LEVELS)
    mask = np.zeros((stack.height, stack.width), bool)
    mask[y, x] = True
    volume = stack.to_volume({t: mask})
    assert np.argwhere(volume).tolist() == [list(VOXEL)]
    assert volume[VOXEL] == 1
    assert (volume.dtype, volume.shape, volume.flags.f_contiguous) == (np.uint8, SHAPE, True)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_frames_to_masks_to_volume_is_the_volume(axis):
    volume = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8)
    stack = FrameStack(volume * np.uint8(255), axis, LEVELS)
    assert np.array_equal(stack.to_volume({t: stack[t][..., 0] > 0 for t in range(len(stack))}), volume)


def test_a_slice_is_written_over_and_others_are_kept():
    stack = FrameStack(marked(), 2, LEVELS)
    out = np.full(SHAPE, 7, np.uint8)
    stack.slice_to_volume(np.zeros((4, 5), np.uint8), 1, out)
    assert not out[:, :, 1].any()
    assert (out[:, :, [0, 2]] == 7).all()


def test_colours_stay_colours():
    volume = np.zeros((*SHAPE, 3), np.uint8)
    volume[VOXEL] = (10, 20, 30)
    frame = FrameStack(volume, 2, LEVELS)[2]
    assert frame[1, 3].tolist() == [10, 20, 30]
    assert frame.flags.c_contiguous
    frame[...] = 0
    assert volume[VOXEL].tolist() == [10, 20, 30]


def test_the_window_is_used():
    volume = np.full((2, 2, 1), 40, np.int16)
    assert (FrameStack(volume, 2, IntensityWindow(-160, 240, "ct"))[0] == 128).all()


def test_a_grey_frame_does_not_share_memory_with_the_volume():
    volume = marked()
    FrameStack(volume, 2, LEVELS)[2][...] = 0
    assert volume[VOXEL] == 200


def test_only_the_asked_slice_is_windowed():
    seen = []

    class Noting(IntensityWindow):
        def apply(self, array):
            seen.append(array.shape)
            return super().apply(array)

    stack = FrameStack(marked(), 0, Noting(0.0, 255.0, "levels"))
    assert seen == []
    assert stack[4].shape == (3, 4, 3)
    assert seen == [(3, 4)]


def test_a_key_changes_with_all_that_a_frame_depends_on():
    stack = FrameStack(marked(), 2, LEVELS)
    others = [
        stack.key(1),
        FrameStack(marked(), 1, LEVELS).key(0),
        FrameStack(marked(), 2, IntensityWindow(0, 254, "levels")).key(0),
        FrameStack(marked(), 2, IntensityWindow(1, 255, "levels")).key(0),
    ]
    assert len({stack.key(0), *others}) == 5
    assert stack.key(0) == FrameStack(marked(), 2, IntensityWindow(0.0, 255.0, "request")).key(0)


@pytest.mark.parametrize("t", [-1, 3])
def test_a_slice_that_is_not_there(t):
    with pytest.raises(IndexError, match=f"slice {t} is not from 0 to 2"):
        FrameStack(marked(), 2, LEVELS)[t]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4, 2), (2, 2, 2, 2, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="neither"):
        FrameStack(np.zeros(shape, np.uint8), 2, LEVELS)


def test_an_axis_that_is_none_is_refused():
    with pytest.raises(ValueError, match="axis 3 must be 0, 1 or 2"):
        FrameStack(marked(), 3, LEVELS)


def test_a_mask_that_was_transposed_is_refused():
    stack = FrameStack(marked(), 2, LEVELS)
    with pytest.raises(ValueError, match=r"\(5, 4\) does not fit frames of \(4, 5\)"):
        stack.to_volume({0: np.zeros((5, 4), bool)})
    with pytest.raises(ValueError, match="does not fit the image"):
        stack.slice_to_volume(np.zeros((4, 5), bool), 0, np.zeros((4, 5, 3), np.uint8))


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.data())
def test_crops_hold_the_prompts_and_grow_to_the_whole_frame(width, height, data):
    low = [data.draw(st.floats(0, side - 1)) for side in (width, height)]
    high = [data.draw(st.floats(start, side - 1)) for start, side in zip(low, (width, height), strict=True)]
    crops = list(crops_around(width, height, low, high))
    assert (crops[-1].left, crops[-1].top, crops[-1].right, crops[-1].bottom) == (0, 0, width, height)
    assert len(crops) < 14
    for crop in crops:
        # Whole numbers are the centres of pixels.
        assert 0 <= crop.left <= low[0] + 0.5
        assert 0 <= crop.top <= low[1] + 0.5
        assert high[0] + 0.5 <= crop.right <= width
        assert high[1] + 0.5 <= crop.bottom <= height
    if max(width, height) <= ELONGATED * min(width, height):
        assert len(crops) == 1


def test_a_crop_s_mask_goes_back_to_its_place():
    crop, (width, height) = Crop(1, 2, 5, 6), (8, 9)
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = True
    whole = crop.paste(mask, width, height)
    assert np.argwhere(whole).tolist() == [[3, 3]]
    assert not crop.cuts(mask, width, height)
    for row, column in ((0, 1), (3, 1), (1, 0), (1, 3)):
        mask = np.zeros((4, 4), bool)
        mask[row, column] = True
        assert crop.cuts(mask, width, height)
    assert not Crop(0, 0, 4, 4).cuts(mask, 4, 4)
