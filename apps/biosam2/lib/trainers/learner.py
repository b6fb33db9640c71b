"""The network that learns: one optimisation step at a time, within the memory there is."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lib.engine.embeddings import EmbeddingCache
from lib.engine.network import Network
from lib.engine.runtime import Runtime
from lib.errors import TrainingError
from lib.trainers import distributed
from lib.trainers.average import Average
from lib.trainers.batches import Batches
from lib.trainers.losses import Losses, LossWeights
from lib.trainers.options import TrainOptions
from lib.trainers.parameters import parameter_groups, prepare, trained_parameters
from lib.trainers.sampler import Batch, Sampler
from lib.trainers.training_step import Teacher

logger = logging.getLogger(__name__)

# Gradients longer than this are shortened: the first steps on a new kind of image have some.
LONGEST_GRADIENT = 1.0
OCCLUSION_HEAD = "pred_obj_score_head"
# Rate at the end of the training, as a part of the first.
LAST_RATE = 0.1
# Steps in a row whose loss is no number, after which nothing good can come.
HOPELESS_STEPS = 10


class Learner:
    """A network in training.

    Attributes:
        network: as the last step left it.
        average: of what it was over the last steps: that is measured and published.
        steps: that were made.

    Args:
        network: to train; it is changed.
        options: of the training.
        sampler: what it learns from.
        runtime: device and number format.
        embedding_budget: bytes for embeddings, where the encoder is frozen.
    """

    def __init__(
        self,
        network: Network,
        options: TrainOptions,
        sampler: Sampler,
        runtime: Runtime,
        embedding_budget: int,
    ):
        torch.manual_seed(options.seed)
        self.network = network.to(runtime.device)
        self._options = options
        self._batches = Batches(sampler, options)
        self._runtime = runtime
        prepare(network, options.preset)
        self._optimizer = torch.optim.AdamW(parameter_groups(network, options))
        weights = LossWeights(
            options.dice_weight, options.bce_weight, options.occlusion_weight, options.iou_weight
        )
        kept = EmbeddingCache(embedding_budget) if options.preset == "decoder" else None
        self._teacher = Teacher(network, weights, kept)
        self.average = Average(network)
        self._parts = options.accumulation  # into which a batch is cut, to fit into the memory
        self._hopeless = 0
        self.steps = 0

    def advance(self, progress: float) -> dict[str, float]:
        """One step.

        Args:
            progress: how much of the training is done, 0 to 1.

        Returns:
            The losses by name, and the learning rate.

        Raises:
            TrainingError: when the losses are no numbers any more, or one frame is too much for the memory.
        """
        number = self.steps * distributed.world() + distributed.rank()
        batch = self._batches.next(number)
        losses = self._accumulate(batch, number)
        distributed.average_gradients(parameter for _, parameter in trained_parameters(self.network))
        rate = self._set_rate(progress)
        if self._shorten_gradients():
            self._optimizer.step()
            self.average.update(self.steps)
            self._hopeless = 0
        else:
            self._hopeless += 1
            logger.warning("Step %d: the gradient is no number; the step is left out", self.steps)
        if self._hopeless >= HOPELESS_STEPS:
            raise TrainingError("the training diverged: its losses are no numbers; lower learning_rate")
        self.steps += 1
        return {**losses, "learning_rate": rate}

    def _shorten_gradients(self) -> bool:
        """Clips the gradients; False where they are no numbers.

        Those of the occlusion head by themselves: it is so sure of itself at first that one empty frame would
        shorten everybody else's to nothing.
        """
        named = list(trained_parameters(self.network))
        norms = [
            torch.nn.utils.clip_grad_norm_(
                [parameter for name, parameter in named if (OCCLUSION_HEAD in name) == of_head],
                LONGEST_GRADIENT,
            )
            for of_head in (True, False)
        ]
        return bool(torch.isfinite(torch.stack(norms)).all())

    def state(self) -> dict[str, Any]:
        """All that a training needs to go on, on the CPU."""
        return {
            "network": {name: value.detach().cpu() for name, value in trained_parameters(self.network)},
            "average": self.average.values,
            "optimizer": self._optimizer.state_dict(),
            "steps": self.steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self.network.load_state_dict(state["network"], strict=False)
        self.average.values = dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]

    def _accumulate(self, batch: Batch, number: int) -> dict[str, float]:
        """Gradients of a batch, in as many parts as the memory asks for."""
        while True:
            try:
                self._optimizer.zero_grad(set_to_none=True)
                sums: dict[str, float] = {}
                for index, part in enumerate(batch.parts(self._parts)):
                    share = len(part.samples) / max(1, len(batch.samples))
                    for name, value in self._backward(part, share, [number, index]).items():
                        sums[name] = sums.get(name, 0.0) + share * value
                return sums
            except torch.OutOfMemoryError as error:
                self._optimizer.zero_grad(set_to_none=True)
                if self._parts >= len(batch.rows):
                    raise TrainingError(
                        f"out of memory with one frame at a time on {self._runtime.device}: choose a smaller "
                        "image_size or fewer objects_per_frame, preset decoder, or device cpu"
                    ) from error
                self._parts = min(2 * self._parts, len(batch.rows))
                torch.cuda.empty_cache()
                logger.warning(
                    "Out of memory: going on with %d frames at a time, and %d such parts a step",
                    math.ceil(len(batch.rows) / self._parts),
                    self._parts,
                )

    def _backward(self, batch: Batch, share: float, seed: list[int]) -> dict[str, float]:
        with self._learning():
            if batch.is_of_clips:
                losses = self._teacher.clip_losses(batch)
            else:
                rng = np.random.default_rng([self._options.seed, 2, *seed])
                losses = self._teacher.image_losses(batch, rng)
            if not losses:
                return {}
            mean = _mean(losses)
            (share * mean.total).backward()
        return {part.name: float(getattr(mean, part.name).detach()) for part in fields(Losses)}

    @contextlib.contextmanager
    def _learning(self) -> Iterator[None]:
        runtime = self._runtime
        # fp16 would need its gradients scaled; where bf16 is missing, 32 bits it is.
        half = runtime.dtype == torch.bfloat16
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.autocast(runtime.type, dtype=torch.bfloat16, enabled=half))
            if runtime.type == "cpu":
                # The backward pass of the fused attention takes 2.5 times that of two matrix products there.
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield

    def _set_rate(self, progress: float) -> float:
        """A linear warm-up, then half a cosine."""
        options = self._options
        warm = min(1.0, (self.steps + 1) / max(1, options.warmup_steps))
        cosine = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * warm * cosine
        return options.learning_rate * warm * cosine


def _mean(losses: list[Losses]) -> Losses:
    """Of decodings; every one counts the same."""
    return replace(
        losses[0],
        **{
            part.name: torch.stack([getattr(loss, part.name) for loss in losses]).mean()
            for part in fields(Losses)
        },
    )
