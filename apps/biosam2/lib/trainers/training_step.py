"""Losses of BioSAM-2 (Yan et al. 2024, equations 2 to 4), through the same network steps as in service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lib.engine.memory import MemoryBank
from lib.engine.network import Decoded, EmbeddingCache, Features, Network, network_image, stack_prompts
from lib.prompts.types import FramePrompts
from lib.trainers.sampler import Batch, Sample, TrainingClip, correct

# Prevents a division by zero for an empty frame; below any relevant loss.
_EPSILON = 1e-8


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses in their sum: alpha and beta of equation 4, and those of the two heads."""

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
    """Equation 2 for each of (B, H, W): ``1 - 2 sum(p g) / (sum(p) + sum(g))``, without squares."""
    overlap = (probabilities * masks).sum((1, 2))
    total = probabilities.sum((1, 2)) + masks.sum((1, 2))
    return 1 - 2 * overlap / total.clamp(min=_EPSILON)


def bce_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Equation 3 for each of (B, H, W): mean of ``-(g log p + (1 - g) log(1 - p))``, from logits of p."""
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2))


def segmentation_loss(
    logits: torch.Tensor,
    masks: torch.Tensor,
    ious: torch.Tensor,
    object_logits: torch.Tensor,
    weights: LossWeights,
) -> Losses:
    """Equation 4, ``alpha Dice + beta BCE``, for present objects, and the losses of the two heads.

    An absent object (empty mask) contributes to the occlusion loss only.

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


# Share of the decoded groups with a correction click on their first answer.
CORRECTED = 0.4


@dataclass(frozen=True)
class TrainingStep:
    """Computes losses of batches.

    Attributes:
        network: Network prepared by ``optimizer.prepare``.
        weights: Weights of the losses.
        embeddings: Cache for the embeddings of a frozen encoder; None if the encoder is trained.
    """

    network: Network
    weights: LossWeights
    embeddings: EmbeddingCache | None = None

    def image_losses(self, batch: Batch, rng: np.random.Generator) -> list[Losses]:
        """Losses of single frames, one for each group of samples decoded together."""
        encoded = self._encode(batch)
        losses = []
        for numbers in batch.groups():
            group = _SampleGroup(batch, numbers, self._device)
            features, truth = encoded.rows(group.clips), group.truth(0)
            decoded, loss = self._segment(features, group, group.prompts, truth)
            if rng.random() < CORRECTED:
                _, loss = self._segment(features, group, group.corrected(decoded, rng), truth)
            losses.append(loss)
        return losses

    def clip_losses(self, batch: Batch) -> list[Losses]:
        """Losses of clips: objects are prompted on the first frame and tracked to the last."""
        encoded = self._encode(batch)
        losses = []
        for numbers in batch.groups():
            group = _SampleGroup(batch, numbers, self._device)
            bank = MemoryBank(max(self.network.num_maskmem, self.network.max_obj_ptrs_in_encoder))
            features = encoded.rows(group.clips * batch.length)
            decoded, loss = self._segment(features, group, group.prompts, group.truth(0))
            bank.add_prompted(0, self.network.remember(features, decoded, prompted=True))
            losses.append(loss)
            for frame in range(1, batch.length):
                features, truth = encoded.rows(group.clips * batch.length + frame), group.truth(frame)
                with told_presence(self.network, truth.flatten(1).any(1)) as object_logits:
                    decoded = self.network.track(features, bank, frame, batch.length, reverse=False)
                losses.append(self._loss(decoded, truth, object_logits))
                bank.add_tracked(frame, self.network.remember(features, decoded, prompted=False))
        return losses

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _segment(
        self, features: Features, group: _SampleGroup, prompts: Sequence[FramePrompts], truth: torch.Tensor
    ) -> tuple[Decoded, Losses]:
        stacked = stack_prompts(prompts, group.sizes, int(self.network.image_size), self._device)
        with told_presence(self.network, truth.flatten(1).any(1)) as object_logits:
            decoded = self.network.segment(features, stacked)
        return decoded, self._loss(decoded, truth, object_logits)

    def _loss(self, decoded: Decoded, truth: torch.Tensor, object_logits: list[torch.Tensor]) -> Losses:
        # Several clicks are decoded twice; the second answer is the one in service.
        return segmentation_loss(decoded.logits, truth, decoded.ious[:, :1], object_logits[-1], self.weights)

    def _encode(self, batch: Batch) -> Features:
        """Features of all frames, clip by clip."""
        if self.embeddings is None:
            return self.network.encode(batch.images.to(self._device, non_blocking=True))
        return _joined(
            [
                self._cached(self.embeddings, clip, place)
                for clip in batch.clips
                for place in range(batch.length)
            ]
        )

    def _cached(self, embeddings: EmbeddingCache, clip: TrainingClip, place: int) -> Features:
        """Features of an augmented frame, encoded once."""
        key = (clip.image.digest, clip.indices[place], clip.augmentation)
        if (features := embeddings.get(key)) is None:
            levels = network_image(clip.frame(place), int(self.network.image_size))
            with torch.no_grad():
                features = self.network.encode(levels.to(self._device))
            embeddings.put(key, features)
        return features


class _SampleGroup:
    """Samples of a batch that are decoded together.

    Attributes:
        prompts: Prompts of each sample on its first frame.
        sizes: (width, height) of each sample's native frame.
        clips: (N,) clip index of each sample.
    """

    def __init__(self, batch: Batch, numbers: Sequence[int], device: torch.device):
        self._batch = batch
        self._numbers = list(numbers)
        self._samples: list[Sample] = [batch.samples[number] for number in numbers]
        self._device = device
        self.prompts = [sample.prompts for sample in self._samples]
        images = [batch.clips[sample.clip].image for sample in self._samples]
        self.sizes = [(image.width, image.height) for image in images]
        self.clips = torch.tensor([sample.clip for sample in self._samples], device=device)

    def truth(self, frame: int) -> torch.Tensor:
        """True masks on a frame: (N, S, S) bool."""
        return self._batch.masks[self._numbers, frame].to(self._device, non_blocking=True)

    def corrected(self, decoded: Decoded, rng: np.random.Generator) -> list[FramePrompts]:
        """The prompts with one correction click each, computed at the native size."""
        prompts = []
        for logits, sample in zip(decoded.logits.detach().float(), self._samples, strict=True):
            truth = sample.masks[0]
            found = F.interpolate(logits[None], truth.shape, mode="bilinear")[0, 0] > 0
            prompts.append(correct(sample.prompts, truth, found.cpu().numpy(), rng))
        return prompts


def _joined(parts: Sequence[Features]) -> Features:
    maps = tuple(torch.cat(levels) for levels in zip(*(part.maps for part in parts), strict=True))
    guides = [part.guide for part in parts if part.guide is not None]
    return Features(maps, torch.cat(guides) if guides else None)


# A logit that leaves no doubt, as SAM 2's own training sets it.
CERTAIN = 10.0


@contextmanager
def told_presence(network: Network, present: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Tells the steps within whether each object is on its frame.

    In inference a step answers "absent" with a constant mask, which has no gradient. Here masks are decoded
    with the ground truth of presence; the predicted score is kept for its own loss.

    Masks of present objects always get a gradient, and memories and object pointers are those of the truth
    (Meta's ``teacher_force_obj_scores_for_mem``). An object that is absent trains the occlusion head and
    nothing below it, as BioSAM-2 has it: "if GT is empty, no mask loss; the occlusion head always".

    Args:
        network: Network, of which ``segment`` and ``track`` are called within.
        present: Ground truth of each row, (B,) bool.

    Yields:
        A list that gets the network's own object logits (B, 1) of each decoding, in order.
    """
    told = torch.where(present, CERTAIN, -CERTAIN)[:, None]
    said: list[torch.Tensor] = []

    def keep_gradient_of_present(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (torch.where(present[:, None], inputs[0], inputs[0].detach()),)

    def tell(_: Any, __: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        *others, object_logits = output
        said.append(object_logits.float())
        return (*others, told.to(object_logits.dtype))

    decoder = network.sam_mask_decoder
    hooks = [
        decoder.pred_obj_score_head.register_forward_pre_hook(keep_gradient_of_present),
        decoder.register_forward_hook(tell),
    ]
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()
