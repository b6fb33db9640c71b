import numpy as np
import pytest

from lib.engine.predictor import Outputs
from lib.prompts.types import FramePrompts
from lib.scoring.signals.object_signals import jitter_signal, native_mask, object_signals, piece_boxes
from tests.unit.scoring.signals.test_boundary import ENTROPY_OF_2


def outputs(logits, object_logit=0.0, ious=(0.7, 0.9)):
    return Outputs(
        np.asarray([logits], np.float32),
        np.asarray([ious], np.float32),
        np.asarray([object_logit], np.float32),
    )


def test_the_signals_of_an_object():
    logits = np.full((6, 8), -2.0)
    logits[:, :4] = 2.0
    found = object_signals(outputs(logits), 0)
    assert found == pytest.approx(
        {"entropy": ENTROPY_OF_2, "presence": 1.0, "predicted_iou": 0.1, "stability": 0.0}, abs=1e-5
    )


def test_where_no_mask_is_there_is_no_boundary_and_nothing_firm():
    found = object_signals(outputs(np.full((6, 8), -1024.0), object_logit=-1024), 0)
    assert set(found) == {"presence", "predicted_iou"}
    assert found["presence"] == 0


def test_a_source_may_know_better_whether_the_object_is_there():
    assert object_signals(outputs(np.full((6, 8), -1024.0)), 0, presence=0.9)["presence"] == pytest.approx(
        0.2
    )


def test_the_native_mask_is_that_of_the_predictor(predictor, body):
    _image, frames, _ = body
    box = FramePrompts(np.zeros((0, 2)), np.zeros(0), box=[27, 6, 53, 26])
    answer = predictor.segment(frames, 4, box)
    logits = predictor.outputs(frames, 4, [box]).logits[0]
    np.testing.assert_array_equal(native_mask(logits, frames.height, frames.width), answer.mask)
    assert answer.mask.any()


def test_a_plain_object_is_found_alike_from_every_box_and_a_faint_one_is_not(predictor, body):
    _image, frames, objects = body
    plain = objects["bright"][:, :, 4].T
    nothing = np.zeros_like(plain)
    nothing[30:44, 34:56] = True  # noise, to the right of the dark body
    rng = np.random.default_rng(0)
    firm, loose = (jitter_signal(predictor, frames, 4, mask, 4, rng) for mask in (plain, nothing))
    assert 0 <= firm < loose <= 1


def test_no_boxes_are_drawn_around_nothing(predictor, body):
    _image, frames, _ = body
    rng = np.random.default_rng(0)
    mask = np.zeros((frames.height, frames.width), bool)
    assert jitter_signal(predictor, frames, 4, mask, 4, rng) is None
    mask[10:20, 10:20] = True
    assert jitter_signal(predictor, frames, 4, mask, 1, rng) is None


def test_the_largest_pieces_get_boxes():
    mask = np.zeros((10, 12), bool)
    mask[0:2, 0:2] = True  # 4 pixels, touching the next by a corner
    mask[2:5, 2:5] = True  # 9
    mask[7, 6:12] = True  # 6
    boxes = [box.box.tolist() for box in piece_boxes(mask, 2)]
    assert boxes == [[2, 2, 5, 5], [6, 7, 12, 8]]
    assert len(piece_boxes(mask, 9)) == 3
    assert piece_boxes(np.zeros((4, 4), bool), 3) == []
