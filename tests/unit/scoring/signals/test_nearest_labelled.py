import numpy as np
import pytest

from lib.engine.predictor import FrameMask
from lib.scoring.signals.labelled import image_frames
from lib.scoring.signals.nearest_labelled import LabelledSlice, NearestLabelSource
from tests.support.phantoms import dice, rimmed
from tests.unit.scoring.signals.conftest import open_phantom
from tests.unit.scoring.signals.test_grid import filled


def labelled(seed, index, names=("bright", "dark")):
    phantom = rimmed(seed)
    image = open_phantom(phantom)
    masks = {name: phantom.objects[name][:, :, index].T for name in names}
    return LabelledSlice(image.digest, index, image_frames(image)[index], masks)


def test_it_needs_a_labelled_slice():
    with pytest.raises(ValueError, match="use the grid"):
        NearestLabelSource([])


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


def test_only_the_largest_classes_are_looked_for(predictor, body):
    _image, frames, _ = body
    one = labelled(1, 4)
    by_size = sorted(one.masks, key=lambda name: -one.masks[name].sum())
    found = NearestLabelSource([one], most=1).suggest(predictor, frames, 4)
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
