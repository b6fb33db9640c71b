import math

import numpy as np
import pytest

from lib.scoring.signals.confidence import doubt, instability, predicted_iou, presence_doubt


@pytest.mark.parametrize(
    ("logit", "expected"),
    [(0.0, 1.0), (math.log(3), 0.5), (-math.log(3), 0.5), (1024.0, 0.0), (-1024.0, 0.0)],
)
def test_doubt_is_greatest_where_the_object_is_as_likely_there_as_not(logit, expected):
    # log 3 is a probability of 3/4: 1 - |2 * 3/4 - 1| = 1/2.
    assert presence_doubt(logit) == pytest.approx(expected)


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


def test_a_mask_that_is_nowhere_cannot_be_unstable():
    assert instability(np.full((4, 4), -1024, np.float32)) is None


def test_a_mask_that_is_nowhere_sure_is_as_unstable_as_can_be():
    assert instability(np.full((4, 4), -0.5, np.float32)) == 1
