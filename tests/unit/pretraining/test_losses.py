"""Losses and Dice of known masks."""

import pytest
import torch

from pretraining.losses import dice_of, mask_loss, soft_truth


def _logits(masks: torch.Tensor, strength: float = 12.0) -> torch.Tensor:
    return ((soft_truth(masks, 64) * 2 - 1) * strength)[:, None]


def test_right_masks_cost_little_and_empty_ones_much(wide_masks):
    good = [float(t.max()) for t in mask_loss(_logits(wide_masks), wide_masks)]
    empty = [float(t.min()) for t in mask_loss(torch.full((2, 1, 64, 64), -12.0), wide_masks)]
    assert good[0] < 0.1
    assert good[1] < 0.4
    assert empty[0] > 0.9
    assert empty[1] > 2


def test_a_small_object_weighs_as_much_as_a_large_one():
    masks = torch.zeros(2, 256, 256, dtype=torch.bool)
    masks[0, 100:116, 40:56] = True
    masks[1, 100:228, 40:168] = True
    cross = mask_loss(torch.full((2, 1, 64, 64), -12.0), masks)[1]
    assert float(cross[0]) == pytest.approx(float(cross[1]), rel=0.5)


def test_dice_and_iou_by_hand():
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 0:8, 0:16] = True
    logits = torch.full((1, 1, 64, 64), -1.0)
    logits[..., 0:8, 8:24] = 1.0
    dice, iou = dice_of(logits, masks)
    assert float(dice) == pytest.approx(0.5)
    assert float(iou) == pytest.approx(1 / 3)


def test_both_empty_is_perfect():
    dice, iou = dice_of(torch.full((1, 1, 16, 16), -1.0), torch.zeros(1, 16, 16, dtype=torch.bool))
    assert (float(dice), float(iou)) == (1.0, 1.0)
