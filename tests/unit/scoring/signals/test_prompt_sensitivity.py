import numpy as np
import pytest

from lib.errors import PromptError
from lib.scoring.signals.prompt_sensitivity import disagreement, jittered_prompts


def row(*cells: int) -> np.ndarray:
    mask = np.zeros((1, 4), bool)
    mask[0, list(cells)] = True
    return mask


def test_disagreement_is_the_mean_over_all_pairs():
    # IoU of the first two is 1/3; the third shares nothing with either.
    assert disagreement([row(0, 1), row(1, 2), row(3)]) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_masks_that_are_the_same_agree_and_so_do_empty_ones():
    assert disagreement([row(0, 1)] * 4) == 0
    assert disagreement([row(), row()]) == 0
    assert disagreement([row(), row(2)]) == 1


@pytest.mark.parametrize("masks", [[], [row(1)]])
def test_one_answer_cannot_disagree(masks):
    assert disagreement(masks) is None


def test_boxes_are_drawn_around_the_mask_as_by_several_hands():
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30:110] = True  # x 30 to 110, y 20 to 60
    boxes = np.array([prompt.box for prompt in jittered_prompts(mask, 200, np.random.default_rng(0))])
    assert len(np.unique(boxes, axis=0)) == 200
    np.testing.assert_allclose(boxes.mean(axis=0), [30, 20, 110, 60], atol=2)
    # A tenth of the sides, which are 80 and 40 pixels.
    np.testing.assert_allclose(boxes.std(axis=0)[[0, 1, 3]], [8, 4, 4], atol=1.2)
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 120


def test_the_same_seed_draws_the_same_boxes():
    mask = np.eye(9, dtype=bool)
    first, again = (jittered_prompts(mask, 3, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal([p.box for p in first], [p.box for p in again])


def test_an_empty_mask_has_no_box():
    with pytest.raises(PromptError, match="empty"):
        jittered_prompts(np.zeros((4, 4), bool), 2, np.random.default_rng(0))
