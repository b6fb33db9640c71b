"""The losses of BioSAM-2 (Yan et al. 2024, equations 2 to 4), and those of the two heads beside the mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

# Below any loss that matters: keeps a frame of all zeros from dividing by zero.
_EPSILON = 1e-8


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts.

    Attributes:
        dice: alpha of equation 4.
        bce: beta of equation 4.
        occlusion: of the occlusion head's cross-entropy.
        iou: of the IoU head's absolute error.
    """

    dice: float = 1.0
    bce: float = 1.0
    occlusion: float = 1.0
    iou: float = 1.0


@dataclass(frozen=True)
class Losses:
    """The parts of a loss, means over the objects they apply to, and their weighted sum ``total``."""

    total: torch.Tensor
    dice: torch.Tensor
    bce: torch.Tensor
    occlusion: torch.Tensor
    iou: torch.Tensor


def dice_loss(probabilities: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Equation 2: ``1 - 2 sum(p g) / (sum(p) + sum(g))``, plain, not squared.

    Args:
        probabilities: (B, H, W) in [0, 1].
        masks: (B, H, W) of zeros and ones.

    Returns:
        (B,).
    """
    overlap = (probabilities * masks).sum((1, 2))
    total = probabilities.sum((1, 2)) + masks.sum((1, 2))
    return 1 - 2 * overlap / total.clamp(min=_EPSILON)


def bce_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Equation 3: the mean over the pixels of ``-(g log p + (1 - g) log(1 - p))``.

    Args:
        logits: (B, H, W); p is their sigmoid.
        masks: (B, H, W) of zeros and ones.

    Returns:
        (B,).
    """
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2))


def segmentation_loss(
    logits: torch.Tensor,
    masks: torch.Tensor,
    ious: torch.Tensor,
    object_logits: torch.Tensor,
    weights: LossWeights,
) -> Losses:
    """Equation 4, ``alpha Dice + beta BCE``, for the objects that are there, and the two heads.

    An object that is absent (an empty mask) has no mask loss and no IoU loss: it teaches the occlusion head
    alone, which is taught by every object.

    Args:
        logits: (B, 1, h, w) of the masks, at any size; brought to that of the truth bilinearly.
        masks: (B, H, W) bool, the truth.
        ious: (B, 1) predicted IoU.
        object_logits: (B, 1) of the occlusion head: above 0 for present.
        weights: of the parts.
    """
    full = F.interpolate(logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    truth = masks.float()
    present = masks.flatten(1).any(1)
    count = present.sum().clamp(min=1)

    def mean_of_present(values: torch.Tensor) -> torch.Tensor:
        return torch.where(present, values, 0.0).sum() / count

    dice = mean_of_present(dice_loss(full.sigmoid(), truth))
    bce = mean_of_present(bce_loss(full, truth))
    iou = mean_of_present((ious[:, 0].float() - _iou(full > 0, masks)).abs())
    occlusion = F.binary_cross_entropy_with_logits(object_logits[:, 0].float(), present.float())
    total = weights.dice * dice + weights.bce * bce + weights.iou * iou + weights.occlusion * occlusion
    return Losses(total, dice.detach(), bce.detach(), occlusion.detach(), iou.detach())


def _iou(found: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """(B,) of (B, H, W) masks; 1 where both are empty."""
    both = (found & masks).sum((1, 2)).float()
    either = (found | masks).sum((1, 2)).float()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(either))
