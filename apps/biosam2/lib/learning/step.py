"""The loss of one batch: the network's own steps of service, and what they should have answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lib.engine.embeddings import EmbeddingCache
from lib.engine.inputs import network_image, stack_prompts
from lib.engine.memory import MemoryBank
from lib.engine.network import Decoded, Features, Network
from lib.engine.teaching import told_presence
from lib.learning.losses import Losses, LossWeights, segmentation_loss
from lib.learning.prompting import correct
from lib.learning.samples import Batch, Row, Sample, network_masks
from lib.prompts.types import FramePrompts

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
        for samples in batch.groups():
            features = encoded.rows(_rows(samples, encoded))
            decoded, loss = self._segment(features, samples, [sample.prompts for sample in samples], batch)
            if rng.random() < CORRECTED:
                prompts = _corrected(decoded, samples, rng)
                _, loss = self._segment(features, samples, prompts, batch)
            losses.append(loss)
        return losses

    def clip_losses(self, batch: Batch) -> list[Losses]:
        """The losses of clips: each object is prompted on the first frame and followed to the last."""
        encoded = self._encode(batch)
        count = len(batch.rows[0].indices)
        losses = []
        for samples in batch.groups():
            rows = _rows(samples, encoded) * count
            features = encoded.rows(rows)
            prompts = [sample.prompts for sample in samples]
            bank = MemoryBank(max(self.network.num_maskmem, self.network.max_obj_ptrs_in_encoder))
            decoded, loss = self._segment(features, samples, prompts, batch)
            bank.add_prompted(0, self.network.remember(features, decoded, prompted=True))
            losses.append(loss)
            for frame in range(1, count):
                features = encoded.rows(rows + frame)
                truth = self._truth(samples, frame)
                with told_presence(self.network, truth.flatten(1).any(1)) as said:
                    decoded = self.network.track(features, bank, frame, count, reverse=False)
                losses.append(self._loss(decoded, truth, said))
                bank.add_tracked(frame, self.network.remember(features, decoded, prompted=False))
        return losses

    def _segment(
        self, features: Features, samples: Sequence[Sample], prompts: Sequence[FramePrompts], batch: Batch
    ) -> tuple[Decoded, Losses]:
        images = [batch.rows[sample.row].image for sample in samples]
        sizes = [(image.width, image.height) for image in images]
        truth = self._truth(samples, 0)
        placed = stack_prompts(prompts, sizes, int(self.network.image_size), truth.device)
        with told_presence(self.network, truth.flatten(1).any(1)) as said:
            decoded = self.network.segment(features, placed)
        return decoded, self._loss(decoded, truth, said)

    def _loss(self, decoded: Decoded, truth: torch.Tensor, said: list[torch.Tensor]) -> Losses:
        # Several clicks are decoded twice, and the second answer is the one that a person sees.
        return segmentation_loss(decoded.logits, truth, decoded.ious[:, :1], said[-1], self.weights)

    def _truth(self, samples: Sequence[Sample], frame: int) -> torch.Tensor:
        device = next(self.network.parameters()).device
        return network_masks(samples, frame, int(self.network.image_size)).to(device, non_blocking=True)

    def _encode(self, batch: Batch) -> Features:
        """Features of every frame of every row, row by row."""
        places = [(row, place) for row in batch.rows for place in range(len(row.indices))]
        if self.embeddings is not None:
            return _joined([self._kept(row, place) for row, place in places])
        return self.network.encode(torch.cat([self._image(row, place) for row, place in places]))

    def _kept(self, row: Row, place: int) -> Features:
        """The embedding of a frame in a view, encoded once."""
        assert self.embeddings is not None
        key = (row.image.digest, row.indices[place], row.view)
        if (features := self.embeddings.get(key)) is None:
            with torch.no_grad():
                features = self.network.encode(self._image(row, place))
            self.embeddings.put(key, features)
        return features

    def _image(self, row: Row, place: int) -> torch.Tensor:
        device = next(self.network.parameters()).device
        image = network_image(row.frame(place), int(self.network.image_size))
        return image.to(device, non_blocking=True)


def _rows(samples: Sequence[Sample], encoded: Features) -> torch.Tensor:
    return torch.tensor([sample.row for sample in samples], device=encoded.maps[0].device)


def _joined(parts: Sequence[Features]) -> Features:
    maps = tuple(torch.cat(levels) for levels in zip(*(part.maps for part in parts), strict=True))
    guides = [part.guide for part in parts if part.guide is not None]
    return Features(maps, torch.cat(guides) if guides else None)


def _corrected(decoded: Decoded, samples: Sequence[Sample], rng: np.random.Generator) -> list[FramePrompts]:
    """The prompts of samples with one more click each, where the answer at the native size is wrong."""
    prompts = []
    for logits, sample in zip(decoded.logits.detach().float(), samples, strict=True):
        truth = sample.masks[0]
        found = F.interpolate(logits[None], truth.shape, mode="bilinear")[0, 0] > 0
        prompts.append(correct(sample.prompts, truth, found.cpu().numpy(), rng))
    return prompts
