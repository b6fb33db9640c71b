import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.engine.frames import CroppedFrames
from lib.engine.interactive import LEAST_SIDE, choose_window, extent_of, moved
from lib.prompts.types import FramePrompts
from lib.transforms.frames import Crop
from tests.unit.engine.conftest import ArrayFrames


def test_a_small_object_gets_a_square_window_and_a_large_one_none():
    window = choose_window((200, 100, 212, 108), (512, 512))
    assert window.right - window.left == window.bottom - window.top == LEAST_SIDE
    assert window.left < 200 < 212 < window.right
    assert window.top < 100 < 108 < window.bottom
    assert choose_window((100, 100, 400, 300), (512, 512)) is None
    assert choose_window((10, 10, 14, 14), (80, 60)) is None, "the frame is hardly larger than a window"


SIDES, SHARES = st.integers(1, 700), st.floats(0.001, 1)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
)
def test_a_window_lies_in_the_frame_and_holds_the_object(height, width, left, top, share_x, share_y):
    x0, y0 = left * (width - 1), top * (height - 1)
    extent = x0, y0, x0 + share_x * (width - x0), y0 + share_y * (height - y0)
    window = choose_window(extent, (height, width))
    if window is None:
        return
    assert 0 <= window.left <= extent[0]
    assert extent[2] <= window.right <= width
    assert 0 <= window.top <= extent[1]
    assert extent[3] <= window.bottom <= height


def test_clicks_near_each_other_share_a_window():
    assert choose_window((200, 100, 212, 108), (512, 512)) == choose_window((201, 101, 212, 109), (512, 512))


def test_frames_and_masks_go_into_the_window_and_back_exactly():
    array = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    window = Crop(10, 5, 30, 25)
    zoomed = CroppedFrames(ArrayFrames(array), window)
    assert (zoomed.height, zoomed.width, len(zoomed), zoomed.digest) == (20, 20, 2, "frames")
    assert (zoomed[1] == array[1, 5:25, 10:30]).all()
    assert zoomed.key(0) != zoomed.key(1)
    mask = np.zeros((20, 20), bool)
    mask[0, 3] = True
    pasted = window.paste(mask, 50, 40)
    assert np.argwhere(pasted).tolist() == [[5, 13]]


def test_prompts_move_into_the_window():
    window = Crop(10, 5, 30, 25)
    whole = np.zeros((40, 50), bool)
    whole[6, 11] = True
    known = np.array([[11, 6, 1]], np.int32)
    prompts = FramePrompts(
        [[12.5, 6], [9, 6], [29.4, 24]], [1, 0, 1], box=[8, 6, 20, 40], mask=whole, known=known
    )
    inside = moved(prompts, window)
    assert inside.points.tolist() == [[2.5, 1], [pytest.approx(19.4), 19]]
    assert inside.labels.tolist() == [1, 1]
    assert inside.box.tolist() == [0, 1, 10, 20]
    assert np.argwhere(inside.mask).tolist() == [[1, 1]]
    assert inside.known.tolist() == [[1, 1, 1]]


def test_the_extent_is_the_box_or_the_first_mask_with_the_clicks():
    mask = np.zeros((40, 50), bool)
    mask[10:20, 5:9] = True
    click = FramePrompts([[30, 12]], [1])
    assert extent_of(FramePrompts.of_box([1, 2, 3, 4]), mask) == (1, 2, 3, 4)
    assert extent_of(click, mask) == (5, 10, 30.5, 20)
    assert extent_of(click, None) is None
    assert extent_of(click, np.zeros((40, 50), bool)) is None
