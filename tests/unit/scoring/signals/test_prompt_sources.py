from __future__ import annotations

import numpy as np
import pytest

from lib.labels.labelled_slices import LabelledSlice, image_frames
from lib.prompts.simulation import tight_box
from lib.prompts.types import FramePrompts
from lib.scoring.signals.nearest_labelled import NearestLabelSource
from lib.scoring.signals.prompt_sources import GridSource, PromptSource, Suggestion, best_apart, grid_points
from tests.support.phantoms import ct, dice
from tests.unit.scoring.signals.conftest import open_phantom


def filled(box, shape):
    x0, y0, x1, y1 = (int(value) for value in box)
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_clicks_stand_in_the_middle_of_equal_parts():
    # A frame of 10 x 6 pixels in four parts of 5 x 3: their middles, half a pixel before their centres' edge.
    assert grid_points(10, 6, 2).tolist() == [[2, 1], [7, 1], [2, 4], [7, 4]]
    assert grid_points(9, 9, 1).tolist() == [[4, 4]]


def test_of_masks_that_overlap_the_best_is_kept():
    masks = np.zeros((4, 1, 8), bool)
    masks[0, 0, 0:4] = True
    masks[1, 0, 0:5] = True  # 4/5 of it is the first
    masks[2, 0, 3:8] = True  # 1/8 of both is the first
    masks[3, 0, 6:8] = True
    assert best_apart(masks, [0.5, 0.9, 0.7, 0.0], most=9) == [1, 2]
    assert best_apart(masks, [0.5, 0.9, 0.7, 0.1], most=9) == [1, 2, 3]
    assert best_apart(masks, [0.5, 0.9, 0.7, 0.1], most=1) == [1]
    assert best_apart(masks, [0.5, 0.5, 0.5, 0.5], most=9) == [0, 2, 3]
    assert best_apart(masks, [0, -1, 0, 0], most=9) == []


def test_the_grid_finds_the_bodies_of_a_phantom(predictor):
    phantom = ct()
    image = open_phantom(phantom)
    frames = image_frames(image)
    found = GridSource().suggest(predictor, frames, 11)
    assert 1 <= len(found) <= 3
    assert {item.label for item in found} == {""}
    shape = (frames.height, frames.width)
    boxes = [filled(item.prompts.box, shape) for item in found]
    for mask in phantom.objects.values():
        truth = filled(tight_box(mask[:, :, 11].T), shape)
        assert max(dice(box, truth) for box in boxes) > 0.75


def test_no_more_than_was_asked_for(predictor, body):
    _image, frames, _ = body
    assert len(GridSource(most=1).suggest(predictor, frames, 4)) == 1


@pytest.mark.parametrize("level", [0, 255])
def test_on_a_blank_frame_there_is_hardly_anything(predictor, level):
    class Blank:
        height, width, digest = 40, 50, "blank"

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return np.full((40, 50, 3), level, np.uint8)

        def key(self, index):
            return level

    for item in GridSource().suggest(predictor, Blank(), 0):
        assert filled(item.prompts.box, (40, 50)).mean() <= 0.8


SLICE = LabelledSlice("d", 0, np.zeros((8, 8, 3), np.uint8), {"a": np.ones((8, 8), bool)})


@pytest.mark.parametrize("source", [GridSource(), NearestLabelSource([SLICE])])
def test_every_source_suggests_boxes_and_the_same_ones_again(source: PromptSource, predictor, body):
    _image, frames, _ = body
    first, again = (source.suggest(predictor, frames, 4) for _ in range(2))
    assert [item.label for item in first] == [item.label for item in again]
    for item, other in zip(first, again, strict=True):
        assert isinstance(item, Suggestion)
        assert (item.prompts is None) == (other.prompts is None)
        if isinstance(item.prompts, FramePrompts):
            assert item.prompts.box is not None
            assert len(item.prompts.points) == 0
            np.testing.assert_array_equal(item.prompts.box, other.prompts.box)


def test_sources_that_differ_have_names_that_differ():
    sources = [GridSource(), GridSource(side=3), GridSource(most=1), NearestLabelSource([SLICE])]
    assert len({source.name for source in sources}) == 4
