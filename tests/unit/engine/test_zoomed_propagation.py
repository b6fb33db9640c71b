"""Small objects are followed in a window; where the mask reaches its border, in a larger one."""

import numpy as np
import pytest

from lib.engine.memory import MemoryBank
from lib.engine.predictor import FrameMask
from lib.engine.zoomed_propagation import propagate_zoomed
from lib.prompts.types import FramePrompts
from tests.unit.engine.conftest import ArrayFrames

SIDE = 400


class BrightPixels:
    """Stands in for the network: answers with the bright pixels of a frame, and notes the frames' sizes."""

    image_size = 256

    def __init__(self):
        self.sizes = []

    def new_bank(self, policy="fifo"):
        return MemoryBank(4, policy)

    def _answer(self, frames, index):
        self.sizes.append((frames.height, frames.width))
        return FrameMask(frames[index][..., 0] > 128, 0.9, 1.0)

    def segment(self, frames, index, prompts, bank=None):
        return self._answer(frames, index)

    def track(self, frames, index, bank, reverse, refused=None):
        return self._answer(frames, index)

    def track_together(self, frames, index, banks, reverse):
        return [self._answer(frames, index) for _ in banks]


def balls(*centres):
    """A frame for each list of centres (x, y), with bright squares of 11 pixels."""
    array = np.zeros((len(centres), SIDE, SIDE, 3), np.uint8)
    for frame, places in zip(array, centres, strict=True):
        for x, y in places:
            frame[y - 5 : y + 6, x - 5 : x + 6] = 255
    return array


def followed(array, *objects):
    network = BrightPixels()
    masks = {}
    for number, index, result in propagate_zoomed(network, ArrayFrames(array), objects):
        masks[number, index] = result.mask
    return masks, network.sizes


def box_around(x, y):
    return FramePrompts.of_box(np.array([x - 5, y - 5, x + 6, y + 6], np.float32))


def test_a_small_object_is_followed_in_a_window_and_pasted_back():
    array = balls([(200, 100)], [(204, 103)], [(198, 99)])
    masks, sizes = followed(array, {1: box_around(204, 103)})
    assert max(map(max, sizes)) <= 128
    for index in range(3):
        assert (masks[0, index] == (array[index, ..., 0] > 0)).all()


@pytest.mark.parametrize(("slices", "whole"), [(9, False), (21, True)])
def test_the_window_grows_where_the_mask_reaches_its_border(slices, whole):
    array = balls(*[[(150 + 7 * step, 200)] for step in range(slices)])
    masks, sizes = followed(array, {0: box_around(150, 200)})
    assert ((SIDE, SIDE) in sizes) == whole
    assert len(set(sizes)) > 1
    for index in range(slices):
        assert (masks[0, index] == (array[index, ..., 0] > 0)).all()


def test_clicks_and_large_objects_stay_on_whole_frames():
    array = balls([(200, 100)], [(200, 100)])
    click = FramePrompts(points=[[200, 100]], labels=[1])
    large = FramePrompts.of_box(np.array([20, 20, 380, 300], np.float32))
    masks, sizes = followed(array, {0: click}, {0: large}, {0: box_around(200, 100)})
    assert sorted({number for number, _ in masks}) == [0, 1, 2]
    assert sizes.count((SIDE, SIDE)) == 4


def test_a_click_far_from_the_box_widens_the_window_and_a_negative_one_outside_is_left_out():
    array = balls([(200, 100)], [(200, 100), (290, 100)], [(200, 100)])
    far = FramePrompts(points=[[290, 100]], labels=[1])
    refused = FramePrompts(points=[[20, 390]], labels=[0])
    masks, _ = followed(array, {0: box_around(200, 100), 1: far, 2: refused})
    assert masks[0, 1][100, 290]
    assert masks[0, 1][100, 200]
