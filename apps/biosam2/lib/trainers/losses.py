"""Losses of BioSAM-2 (Yan et al. 2024, equations 2 to 4), and of the IoU and occlusion heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

# Prevents a division by zero for an empty frame; below any relevant loss.
_EPSILON = 1e-8


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses in their sum.

    Attributes:
        dice: Weight alpha of equation 4.
        bce: Weight beta of equation 4.
        occlusion: Weight of the occlusion head's cross-entropy.
        iou: Weight of the IoU head's absolute error.
    """

    dice: float = 1.0
    bce: float = 1.0
    occlusion: float = 1.0
    iou: float = 1.0


@dataclass(frozen=True)
class Losses:
    """Losses averaged over the objects that they apply to, and their weighted sum ``total``."""

    total: torch.Tensor
    dice: torch.Tensor
    bce: torch.Tensor
    occlusion: torch.Tensor
    iou: torch.Tensor

    @classmethod
    def mean(cls, losses: Sequence[Losses]) -> Losses:
        """Unweighted mean over decodings, at least one."""
        names = [part.name for part in fields(cls)]
        return cls(*(torch.stack([getattr(loss, name) for loss in losses]).mean() for name in names))

    def to_floats(self) -> dict[str, float]:
        """The losses as numbers by name."""
        return {part.name: float(getattr(self, part.name).detach()) for part in fields(self)}


def dice_loss(probabilities: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Equation 2: ``1 - 2 sum(p g) / (sum(p) + sum(g))``, without squares.

    Args:
        probabilities: (B, H, W) in [0, 1].
        masks: (B, H, W) zeros and ones.

    Returns:
        (B,) losses.
    """
    overlap = (probabilities * masks).sum((1, 2))
    total = probabilities.sum((1, 2)) + masks.sum((1, 2))
    return 1 - 2 * overlap / total.clamp(min=_EPSILON)


def bce_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Equation 3: mean over the pixels of ``-(g log p + (1 - g) log(1 - p))``.

    Args:
        logits: (B, H, W) logits of p.
        masks: (B, H, W) zeros and ones.

    Returns:
        (B,) losses.
    """
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2))


def segmentation_loss(
    logits: torch.Tensor,
    masks: torch.Tensor,
    ious: torch.Tensor,
    object_logits: torch.Tensor,
    weights: LossWeights,
) -> Losses:
    """Equation 4, ``alpha Dice + beta BCE``, for present objects, and the losses of the two heads.

    An absent object (empty mask) contributes neither mask loss nor IoU loss; the occlusion loss covers all
    objects.

    Args:
        logits: (B, 1, h, w) mask logits of any size, resized bilinearly to that of the masks.
        masks: (B, H, W) bool true masks.
        ious: (B, 1) predicted IoU.
        object_logits: (B, 1) logits of the occlusion head, positive for present.
        weights: Weights of the losses.
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
    """(B,) IoU of (B, H, W) masks; 1 for two empty masks."""
    both = (found & masks).sum((1, 2)).float()
    either = (found | masks).sum((1, 2)).float()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(either))
