"""Losses and scores of mask logits against binary truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pretraining.prompts import boxes_of

__all__ = ["dice_of", "mask_loss", "soft_truth"]


def soft_truth(masks: torch.Tensor, side: int) -> torch.Tensor:
    """(N, side, side) share of each cell that (N, S, S) masks cover."""
    return F.avg_pool2d(masks[:, None].float(), masks.shape[-1] // side)[:, 0]


def dice_of(logits: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) Dice and IoU of (N, 1, s, s) logits, brought to the size of (N, S, S) masks; both empty is 1."""
    if logits.shape[-1] != masks.shape[-1]:
        logits = F.interpolate(logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False)
    predicted = (logits[:, 0] > 0).flatten(1)
    truth = masks.flatten(1)
    both = (predicted & truth).sum(1).float()
    total = predicted.sum(1).float() + truth.sum(1).float()
    dice = torch.where(total > 0, 2 * both / total.clamp(min=1), torch.ones_like(total))
    return dice, torch.where(total > 0, both / (total - both).clamp(min=1), torch.ones_like(total))


def mask_loss(logits: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) soft Dice loss and cross-entropy of (N, 1, s, s) logits at twice their resolution.

    The cross-entropy is a mean over the object's box grown by a half, plus half the mean elsewhere:
    small objects weigh as much as large ones, and the output does not start out empty.
    """
    side = 2 * logits.shape[-1]
    logits = F.interpolate(logits.float(), (side, side), mode="bilinear", align_corners=False)[:, 0]
    truth = soft_truth(masks, side)
    probability = logits.sigmoid()
    overlap = (probability * truth).flatten(1).sum(1)
    total = probability.flatten(1).sum(1) + truth.flatten(1).sum(1)
    dice = 1 - (2 * overlap + 1) / (total + 1)
    near = _neighbourhood(boxes_of(masks) * (side / masks.shape[-1]), side)
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    inside = (cross * near).flatten(1).sum(1) / near.flatten(1).sum(1).clamp(min=1)
    far = 1 - near
    outside = (cross * far).flatten(1).sum(1) / far.flatten(1).sum(1).clamp(min=1)
    return dice, inside + 0.5 * outside


def _neighbourhood(boxes: torch.Tensor, side: int) -> torch.Tensor:
    """(N, side, side) one inside the boxes grown by a quarter to each side and two cells, else zero."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * 0.25 + 2
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    axis = torch.arange(side, device=boxes.device)[None]
    x = (axis >= low[:, :1]) & (axis < high[:, :1])
    y = (axis >= low[:, 1:]) & (axis < high[:, 1:])
    return (y[:, :, None] & x[:, None, :]).float()
