"""Equations 2 to 4 of BioSAM-2 against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lib.trainers.training_step import LossWeights, bce_loss, dice_loss, segmentation_loss

ALL = LossWeights()


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_losses_are_those_of_the_equations():
    # p = 0.9 0.2 / 0.6 0.5, g = 1 0 / 1 0: 1 - 2 (0.9 + 0.6) / (2.2 + 2) = 1 - 3 / 4.2
    p = torch.tensor([[[0.9, 0.2], [0.6, 0.5]]])
    g = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert float(dice_loss(p, g)) == pytest.approx(1 - 3 / 4.2, abs=1e-6)

    # Equation 2 is plain and not squared.
    # With squares in the denominator this would be 0.
    p = torch.full((1, 2, 2), 0.5)
    assert float(dice_loss(p, torch.ones(1, 2, 2))) == pytest.approx(1 - 2 * 2 / (2 + 4), abs=1e-6)

    # Equation 3 cross entropy.
    logits = torch.tensor([[[logit(0.9), logit(0.2)], [logit(0.6), logit(0.5)]]])
    g = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    by_hand = -(math.log(0.9) + math.log(0.8) + math.log(0.6) + math.log(0.5)) / 4
    assert float(bce_loss(logits, g)) == pytest.approx(by_hand, abs=1e-6)

    # Equation 4 is the weighted sum.
    for alpha, beta in [(1.0, 1.0), (0.3, 2.0)]:
        logits = torch.tensor([[[[logit(0.9), logit(0.2)], [logit(0.6), logit(0.5)]]]])
        masks = torch.tensor([[[True, False], [True, False]]])
        weights = LossWeights(dice=alpha, bce=beta, occlusion=0.0, iou=0.0)
        dice = 1 - 3 / 4.2
        bce = -(math.log(0.9) + math.log(0.8) + math.log(0.6) + math.log(0.5)) / 4
        losses = segmentation_loss(logits, masks, torch.zeros(1, 1), torch.zeros(1, 1), weights)
        assert float(losses.total) == pytest.approx(alpha * dice + beta * bce, abs=1e-6)


def test_the_heads_beside_the_mask():
    # Found above 0: the first column and the top right cell; IoU 2 / 3. Predicted 0.5.
    logits = torch.tensor([[[[2.0, 1.0], [3.0, -1.0]]]])
    masks = torch.tensor([[[True, False], [True, False]]])
    losses = segmentation_loss(logits, masks, torch.tensor([[0.5]]), torch.tensor([[2.0]]), ALL)
    assert float(losses.iou) == pytest.approx(2 / 3 - 0.5, abs=1e-6)
    assert float(losses.occlusion) == pytest.approx(math.log1p(math.exp(-2.0)), abs=1e-6)


def test_an_empty_frame_has_the_loss_of_the_occlusion_head_alone():
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    iou = torch.rand(1, 1, requires_grad=True)
    presence = torch.tensor([[1.0]], requires_grad=True)
    losses = segmentation_loss(logits, torch.zeros(1, 4, 4, dtype=torch.bool), iou, presence, ALL)
    losses.total.backward()
    assert float(losses.total.detach()) == pytest.approx(math.log1p(math.exp(1.0)), abs=1e-6)
    assert float(presence.grad) == pytest.approx(1 / (1 + math.exp(-1.0)), abs=1e-6)
    assert not logits.grad.any()
    assert not iou.grad.any()

    # An empty frame does not thin out the others.
    logits = torch.randn(2, 1, 4, 4)
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True
    together = segmentation_loss(logits, masks, torch.rand(2, 1), torch.zeros(2, 1), ALL)
    alone = segmentation_loss(logits[:1], masks[:1], torch.rand(1, 1), torch.zeros(1, 1), ALL)
    assert float(together.dice) == pytest.approx(float(alone.dice), abs=1e-6)
    assert float(together.bce) == pytest.approx(float(alone.bce), abs=1e-6)


def test_extreme_logits_give_finite_losses_and_gradients():
    logits = torch.tensor([[[[1e4, -1e4], [1e4, 1e4]]]], requires_grad=True)
    masks = torch.tensor([[[True, True], [False, True]]])
    losses = segmentation_loss(logits, masks, torch.ones(1, 1), torch.tensor([[1e4]]), ALL)
    losses.total.backward()
    assert math.isfinite(float(losses.total.detach()))
    assert torch.isfinite(logits.grad).all()
