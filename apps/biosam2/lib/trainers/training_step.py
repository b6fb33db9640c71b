"""The loss of one batch: the network's own steps of service, and what they should have answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lib.engine.embeddings import EmbeddingCache
from lib.engine.memory import MemoryBank
from lib.engine.network import Decoded, Features, Network
from lib.engine.preprocessing import network_image, stack_prompts
from lib.engine.teacher_forcing import told_presence
from lib.prompts.types import FramePrompts
from lib.trainers.losses import Losses, LossWeights, segmentation_loss
from lib.trainers.prompt_sampling import correct
from lib.trainers.sampler import Batch, Row, Sample

# Share of the groups of a batch that get a correction on their first answer, as people go on to do.
CORRECTED = 0.4


@dataclass(frozen=True)
class Teacher:
    """What every step of a training shares.

    Attributes:
        network: prepared by ``parameters.prepare``.
        weights: of the losses.
        embeddings: where the encoder is frozen, what it made of frames; None where it learns.
    """

    network: Network
    weights: LossWeights
    embeddings: EmbeddingCache | None = None

    def image_losses(self, batch: Batch, rng: np.random.Generator) -> list[Losses]:
        """The losses of single frames, one for each group of prompts that were decoded together."""
        encoded = self._encode(batch)
        losses = []
        for numbers in batch.groups():
            group = _Group(batch, numbers, self._device)
            features, truth = encoded.rows(group.rows), group.truth(0)
            decoded, loss = self._segment(features, group, group.prompts, truth)
            if rng.random() < CORRECTED:
                _, loss = self._segment(features, group, group.corrected(decoded, rng), truth)
            losses.append(loss)
        return losses

    def clip_losses(self, batch: Batch) -> list[Losses]:
        """The losses of clips: each object is prompted on the first frame and followed to the last."""
        encoded = self._encode(batch)
        count = len(batch.rows[0].indices)
        losses = []
        for numbers in batch.groups():
            group = _Group(batch, numbers, self._device)
            bank = MemoryBank(max(self.network.num_maskmem, self.network.max_obj_ptrs_in_encoder))
            features = encoded.rows(group.rows * count)
            decoded, loss = self._segment(features, group, group.prompts, group.truth(0))
            bank.add_prompted(0, self.network.remember(features, decoded, prompted=True))
            losses.append(loss)
            for frame in range(1, count):
                features, truth = encoded.rows(group.rows * count + frame), group.truth(frame)
                with told_presence(self.network, truth.flatten(1).any(1)) as said:
                    decoded = self.network.track(features, bank, frame, count, reverse=False)
                losses.append(self._loss(decoded, truth, said))
                bank.add_tracked(frame, self.network.remember(features, decoded, prompted=False))
        return losses

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _segment(
        self, features: Features, group: _Group, prompts: Sequence[FramePrompts], truth: torch.Tensor
    ) -> tuple[Decoded, Losses]:
        placed = stack_prompts(prompts, group.sizes, int(self.network.image_size), self._device)
        with told_presence(self.network, truth.flatten(1).any(1)) as said:
            decoded = self.network.segment(features, placed)
        return decoded, self._loss(decoded, truth, said)

    def _loss(self, decoded: Decoded, truth: torch.Tensor, said: list[torch.Tensor]) -> Losses:
        # Several clicks are decoded twice, and the second answer is the one that a person sees.
        return segmentation_loss(decoded.logits, truth, decoded.ious[:, :1], said[-1], self.weights)

    def _encode(self, batch: Batch) -> Features:
        """Features of every frame of every row, row by row."""
        if self.embeddings is None:
            return self.network.encode(batch.images.to(self._device, non_blocking=True))
        places = [(row, place) for row in batch.rows for place in range(len(row.indices))]
        return _joined([self._kept(row, place) for row, place in places])

    def _kept(self, row: Row, place: int) -> Features:
        """The embedding of a frame in a view, encoded once."""
        assert self.embeddings is not None
        key = (row.image.digest, row.indices[place], row.view)
        if (features := self.embeddings.get(key)) is None:
            levels = network_image(row.frame(place), int(self.network.image_size))
            with torch.no_grad():
                features = self.network.encode(levels.to(self._device))
            self.embeddings.put(key, features)
        return features


class _Group:
    """Samples of a batch that are decoded together.

    Attributes:
        prompts: of each, on its first frame.
        sizes: (width, height) of each one's native frame.
        rows: (N,) of the batch.
    """

    def __init__(self, batch: Batch, numbers: Sequence[int], device: torch.device):
        self._batch = batch
        self._numbers = list(numbers)
        self._samples: list[Sample] = [batch.samples[number] for number in numbers]
        self._device = device
        self.prompts = [sample.prompts for sample in self._samples]
        images = [batch.rows[sample.row].image for sample in self._samples]
        self.sizes = [(image.width, image.height) for image in images]
        self.rows = torch.tensor([sample.row for sample in self._samples], device=device)

    def truth(self, frame: int) -> torch.Tensor:
        """The masks on one of the frames: (N, S, S) bool."""
        return self._batch.masks[self._numbers, frame].to(self._device, non_blocking=True)

    def corrected(self, decoded: Decoded, rng: np.random.Generator) -> list[FramePrompts]:
        """The prompts with one more click each, where the answer at the native size is wrong."""
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
