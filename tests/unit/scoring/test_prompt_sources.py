from __future__ import annotations

import numpy as np
import pytest

from lib.engine.predictor import FrameMask
from lib.labels.labelled_slices import LabelledSlice, class_masks, image_frames, labelled_slices
from lib.labels.values import LabelMap
from lib.metrics.segmentation import jaccard
from lib.prompts.simulation import tight_box
from lib.prompts.types import FramePrompts
from lib.scoring import prompt_sources
from lib.scoring.prompt_sources import (
    GridSource,
    NearestLabelSource,
    PromptSource,
    Suggestion,
    accepted_pairs,
    best_apart,
    grid_points,
)
from tests.support.phantoms import ct, dice, rimmed
from tests.unit.scoring.conftest import open_phantom


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


def test_no_more_than_was_asked_for(predictor, body, monkeypatch):
    _image, frames, _ = body
    monkeypatch.setattr(prompt_sources, "MOST_OBJECTS", 1)
    assert len(GridSource().suggest(predictor, frames, 4)) == 1


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


def label_map(objects):
    array = sum(value * mask.astype(np.uint8) for value, mask in enumerate(objects.values(), 1))
    return LabelMap(array, dict(enumerate(objects, 1)))


def test_slices_are_spread_over_those_with_an_object(body):
    image, frames, objects = body
    held = [k for k in range(9) if any(mask[:, :, k].any() for mask in objects.values())]
    slices = labelled_slices(image, label_map(objects), 3)
    assert len(slices) == 3
    assert {item.index for item in slices} <= set(held)
    assert slices[1].index == held[len(held) // 2]
    for item in slices:
        np.testing.assert_array_equal(item.levels, frames[item.index])
        assert item.digest == image.digest
        for name, mask in item.masks.items():
            np.testing.assert_array_equal(mask, objects[name][:, :, item.index].T)


def test_all_of_them_where_there_are_few(body):
    image, _, objects = body
    only = {name: mask & (np.arange(9) == 4) for name, mask in objects.items()}
    assert [item.index for item in labelled_slices(image, label_map(only), 8)] == [4]


def test_objects_of_one_class_are_one_mask_and_specks_are_left_out():
    values = np.zeros((10, 12), np.uint8)
    values[0:4, 0:4] = 1  # 16 pixels
    values[6:10, 0:4] = 2
    values[0:2, 8:10] = 3  # 4 pixels
    masks = class_masks(values, {1: "nucleus", 2: "nucleus", 3: "speck"})
    assert list(masks) == ["nucleus"]
    assert masks["nucleus"].sum() == 32


def test_pairs_are_the_predicted_and_the_true_iou_of_the_answer_to_a_box(predictor):
    phantom = rimmed(3)
    image = open_phantom(phantom)
    slices = labelled_slices(image, label_map(phantom.objects), 4)
    predicted, true = accepted_pairs(predictor, slices)
    assert len(predicted) == len(true) == sum(len(item.masks) for item in slices)
    assert all(0 <= value <= 1 for value in [*predicted, *true])
    # The bundled weights take the cores of these bodies alone: most of their rims is missing.
    core = jaccard(phantom.objects["bright"][:, :, 4].T, phantom.objects["bright"][:, :, 4].T)
    assert max(true) < core
    assert min(true) > 0.1
    np.testing.assert_array_equal(image_frames(image)[slices[0].index], slices[0].levels)


def labelled(seed, index, names=("bright", "dark")):
    phantom = rimmed(seed)
    image = open_phantom(phantom)
    masks = {name: phantom.objects[name][:, :, index].T for name in names}
    return LabelledSlice(image.digest, index, image_frames(image)[index], masks)


def test_what_was_labelled_on_another_image_is_found_with_its_class(predictor, body):
    _image, frames, objects = body
    found = NearestLabelSource([labelled(1, 4)]).suggest(predictor, frames, 4)
    assert {item.label for item in found} == {"bright", "dark"}
    for name, mask in objects.items():
        (first, *_) = [item for item in found if item.label == name]
        assert dice(filled(first.prompts.box, (frames.height, frames.width)), mask[:, :, 4].T) > 0.6
        assert first.presence > 0.5


def test_the_slice_that_looks_most_like_the_frame_is_taken(predictor, body):
    _image, frames, _ = body
    plain = LabelledSlice("other", 0, np.zeros((48, 60, 3), np.uint8), {"wrong": np.ones((48, 60), bool)})
    found = NearestLabelSource([plain, labelled(1, 4), plain]).suggest(predictor, frames, 4)
    assert {item.label for item in found} == {"bright", "dark"}


def test_the_labels_of_the_image_itself_are_not_taken(predictor, body):
    image, frames, _ = body
    own = labelled(0, 4)
    assert own.digest == image.digest
    assert NearestLabelSource([own]).suggest(predictor, frames, 4) == []


def test_only_the_largest_classes_are_looked_for(predictor, body, monkeypatch):
    monkeypatch.setattr(prompt_sources, "MOST_CLASSES", 1)
    _image, frames, _ = body
    one = labelled(1, 4)
    by_size = sorted(one.masks, key=lambda name: -one.masks[name].sum())
    found = NearestLabelSource([one]).suggest(predictor, frames, 4)
    assert {item.label for item in found} == {by_size[0]}


def test_a_class_that_is_not_found_is_said_to_be_absent(predictor, body, monkeypatch):
    _image, frames, _ = body
    nothing = FrameMask(np.zeros((frames.height, frames.width), bool), 0.0, 0.25)
    monkeypatch.setattr(predictor, "track", lambda *_, **__: nothing)
    (item,) = NearestLabelSource([labelled(1, 4, ("bright",))]).suggest(predictor, frames, 4)
    assert (item.label, item.prompts, item.presence) == ("bright", None, 0.25)


def test_a_class_in_several_pieces_gets_a_box_for_each(predictor, body, monkeypatch):
    _image, frames, _ = body
    mask = np.zeros((frames.height, frames.width), bool)
    mask[2:4, 2:4] = mask[10:14, 2:6] = mask[20:23, 2:5] = mask[30, 2] = True
    monkeypatch.setattr(predictor, "track", lambda *_, **__: FrameMask(mask, 0.9, 0.75))
    found = NearestLabelSource([labelled(1, 4, ("bright",))]).suggest(predictor, frames, 4)
    assert [item.prompts.box.tolist() for item in found] == [[2, 10, 6, 14], [2, 20, 5, 23], [2, 2, 4, 4]]
    assert {(item.label, item.presence) for item in found} == {("bright", 0.75)}


def test_two_frames_that_are_asked_about_do_not_disturb_each_other(predictor, body):
    _image, frames, _ = body
    source, fresh = NearestLabelSource([labelled(1, 4)]), NearestLabelSource([labelled(1, 4)])
    source.suggest(predictor, frames, 7)
    after = source.suggest(predictor, frames, 4)
    alone = fresh.suggest(predictor, frames, 4)
    for one, other in zip(after, alone, strict=True):
        assert (one.label, one.presence) == (other.label, other.presence)
        np.testing.assert_array_equal(one.prompts.box, other.prompts.box)
