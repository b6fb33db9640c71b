from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.engine.network import Features
from lib.engine.predictor import Outputs
from lib.metrics.calibration import Calibration
from lib.prompts.types import FramePrompts
from lib.scoring.signals import (
    SIGNALS,
    WEIGHTS,
    binary_entropy,
    boundary_entropy,
    combine,
    disagreement,
    doubt,
    frame_vector,
    instability,
    jitter_signal,
    mean_parts,
    mean_vector,
    native_mask,
    object_signals,
    piece_boxes,
    predicted_iou,
    unit,
)

ALL = {"stability": 0.1, "predicted_iou": 0.2, "entropy": 0.5, "jitter": 0.3, "presence": 1.0}


def test_the_score_is_the_weighted_mean_of_the_signals():
    assert set(WEIGHTS) == set(SIGNALS)
    assert sum(WEIGHTS.values()) == pytest.approx(1)

    # The score is the weighted mean.
    assert combine(ALL) == pytest.approx(0.3 * 0.1 + 0.25 * 0.2 + 0.2 * 0.5 + 0.2 * 0.3 + 0.05 * 1.0)

    # What could not be told counts as undecided.
    assert combine({}) == pytest.approx(0.5)
    assert combine({"presence": 1.0}) == pytest.approx(0.95 * 0.5 + 0.05)
    assert combine({**ALL, "unheard of": 1.0}) == combine(ALL)

    # The least and the most.
    assert combine(dict.fromkeys(SIGNALS, 0.0)) == 0
    assert combine(dict.fromkeys(SIGNALS, 1.0)) == pytest.approx(1)

    # The predicted iou is calibrated.
    # Predicted 0.8; people find 0.6 there, so its part is 0.4 and not 0.2.
    calibration = Calibration((0.2, 0.8), (0.1, 0.6), 20)
    assert combine(ALL, calibration) - combine(ALL) == pytest.approx(0.25 * 0.2)


def test_signals_are_averaged_over_those_who_have_them():
    found = mean_parts([{"jitter": 0.2, "entropy": 0.5}, {"jitter": 0.4}, {"presence": 1.0}, {}])
    assert found == pytest.approx({"entropy": 0.5, "jitter": 0.3, "presence": 1.0})
    assert mean_parts([]) == {}
    assert mean_parts([{"entropy": 1 + 1e-9}]) == {"entropy": 1.0}


def test_a_vector_is_a_mean_at_length_one():
    last = torch.tensor([[[[2.0, 4.0]], [[4.0, 4.0]]]])  # two channels of two cells: means 3 and 4
    features = Features((torch.zeros(1, 5, 4, 4), last))
    np.testing.assert_allclose(frame_vector(features), [0.6, 0.8], rtol=1e-6)
    assert frame_vector(features).dtype == np.float32

    # Half precision is averaged in full.
    last = torch.full((1, 3, 64, 64), 0.1, dtype=torch.bfloat16)
    np.testing.assert_allclose(frame_vector(Features((last,))), [3**-0.5] * 3, rtol=1e-6)

    # An image is the mean of its frames at length one.
    found = mean_vector([np.array([1, 0], np.float32), np.array([0, 1], np.float32)])
    np.testing.assert_allclose(found, [2**-0.5, 2**-0.5], rtol=1e-6)

    # Nothing has no direction.
    np.testing.assert_array_equal(unit(np.zeros(3)), [0, 0, 0])


def test_frames_that_look_alike_are_near_each_other(predictor, body):
    _image, frames, _ = body
    first, beside, far = (frame_vector(predictor.features(frames, index)) for index in (4, 5, 0))
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ beside > first @ far


# -p log2 p - q log2 q for p = 1 / (1 + e^-2) = 0.880797 and q = 0.119203.
ENTROPY_OF_2 = 0.880797 * 0.183119 + 0.119203 * 3.068510
# And for p = 1 / (1 + e^-1) = 0.731059, q = 0.268941.
ENTROPY_OF_1 = 0.731059 * 0.451941 + 0.268941 * 1.894636


def halves(left: float, near_left: float, near_right: float, right: float) -> np.ndarray:
    """Eight columns: the mask is the left half."""
    row = [left] * 3 + [near_left] + [near_right] + [right] * 3
    return np.tile(np.array(row, np.float32), (6, 1))


def test_entropy_is_that_of_the_band_around_the_boundary():
    # The undecided outer columns, a logit of 0.001 and of -0.001, are not near it.
    assert boundary_entropy(halves(0.001, 2, -1, -0.001), radius=1) == pytest.approx(
        (ENTROPY_OF_2 + ENTROPY_OF_1) / 2, abs=1e-5
    )

    # A wider band takes in more.
    # Two columns on either side: 2 and 0.001 within, -1 and -0.001 without.
    assert boundary_entropy(halves(0.001, 2, -1, -0.001), radius=2) == pytest.approx(
        (ENTROPY_OF_2 + 1 + ENTROPY_OF_1 + 1) / 4, abs=1e-5
    )

    # The band grows with the grid.
    small = halves(9, 2, -2, -9)
    assert boundary_entropy(small) == pytest.approx(ENTROPY_OF_2, abs=1e-5)
    # 64 rows: two cells on either side.
    large = np.repeat(np.repeat(halves(9, 2, -2, -9), 11, axis=0)[:64], 2, axis=1)
    assert boundary_entropy(large) == pytest.approx(ENTROPY_OF_2, abs=1e-5)

    # The edge of the frame is no boundary.
    logits = np.full((5, 9), 3.0, np.float32)
    logits[:, 8] = -3.0
    assert boundary_entropy(logits, radius=1) == pytest.approx(float(binary_entropy(np.float32(3))), abs=1e-6)
    logits[:, :7] = 0.01  # at the other edge, and undecided
    assert boundary_entropy(logits, radius=1) == pytest.approx(float(binary_entropy(np.float32(3))), abs=1e-6)

    # A mask without a boundary says nothing.
    for value in (-1024.0, -1.0, 0.0, 5.0):
        assert boundary_entropy(np.full((6, 6), value, np.float32)) is None


def test_entropy_is_one_bit_at_most_and_nothing_where_all_is_decided():
    found = binary_entropy(np.array([0, 1024, -1024, 2, -2], np.float32))
    np.testing.assert_allclose(found, [1, 0, 0, ENTROPY_OF_2, ENTROPY_OF_2], atol=1e-5)


def test_doubt_of_a_probability():
    assert [doubt(p) for p in (0.0, 0.25, 0.5, 0.9, 1.0)] == pytest.approx([0, 0.5, 1, 0.2, 0])


def test_the_best_of_the_masks_counts_and_stays_within_0_and_1():
    assert predicted_iou(np.array([0.2, 0.75, 0.5], np.float32)) == pytest.approx(0.75)
    assert predicted_iou(np.array([1.2], np.float32)) == 1
    assert predicted_iou(np.array([-0.2], np.float32)) == 0


def test_instability_is_what_the_mask_loses_when_its_threshold_moves():
    # One cell is above 1, three are above -1.
    logits = np.array([[2.0, 0.5, -0.5, -2.0]], np.float32)
    assert instability(logits) == pytest.approx(1 - 1 / 3)
    # Two are above 0.4, two above -0.4.
    assert instability(logits, offset=0.4) == 0

    # A mask that is nowhere cannot be unstable.
    assert instability(np.full((4, 4), -1024, np.float32)) is None

    # A mask that is nowhere sure is as unstable as can be.
    assert instability(np.full((4, 4), -0.5, np.float32)) == 1


def row(*cells: int) -> np.ndarray:
    mask = np.zeros((1, 4), bool)
    mask[0, list(cells)] = True
    return mask


def test_disagreement_is_the_mean_over_all_pairs():
    # IoU of the first two is 1/3; the third shares nothing with either.
    assert disagreement([row(0, 1), row(1, 2), row(3)]) == pytest.approx((2 / 3 + 1 + 1) / 3)

    # Masks that are the same agree and so do empty ones.
    assert disagreement([row(0, 1)] * 4) == 0
    assert disagreement([row(), row()]) == 0
    assert disagreement([row(), row(2)]) == 1

    # One answer cannot disagree.
    assert disagreement([]) is None
    assert disagreement([row(1)]) is None


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

    # Where no mask is there is no boundary and nothing firm.
    found = object_signals(outputs(np.full((6, 8), -1024.0), object_logit=-1024), 0)
    assert set(found) == {"presence", "predicted_iou"}
    assert found["presence"] == 0

    # Doubt is greatest where the object is as likely there as not.
    # log 3 is a probability of 3/4: 1 - |2 * 3/4 - 1| = 1/2.
    for logit, expected in ((0.0, 1.0), (np.log(3), 0.5), (-np.log(3), 0.5), (1024.0, 0.0), (-1024.0, 0.0)):
        found = object_signals(outputs(np.zeros((6, 8)), object_logit=logit), 0)
        assert found["presence"] == pytest.approx(expected)

    # A source may know better whether the object is there.
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


def test_boxes_are_drawn_around_the_mask_as_by_several_hands(predictor, body, monkeypatch):
    _, frames, _ = body
    drawn = []

    def look(frames, index, prompts):
        drawn.extend(prompt.box for prompt in prompts)
        return outputs(np.zeros((6, 8)))

    monkeypatch.setattr(predictor, "outputs", look)
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30:110] = True  # x 30 to 110, y 20 to 60
    for _ in range(2):
        jitter_signal(predictor, frames, 4, mask, 200, np.random.default_rng(0))
    boxes, again = np.array(drawn[:200]), np.array(drawn[200:])
    np.testing.assert_array_equal(boxes, again)
    assert len(np.unique(boxes, axis=0)) == 200
    np.testing.assert_allclose(boxes.mean(axis=0), [30, 20, 110, 60], atol=2)
    # A tenth of the sides, which are 80 and 40 pixels.
    np.testing.assert_allclose(boxes.std(axis=0)[[0, 1, 3]], [8, 4, 4], atol=1.2)
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 120


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
