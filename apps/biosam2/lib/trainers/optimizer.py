"""Optimisation of a network: trained parameters, learning rates, one step at a time, weight averaging."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel

from lib.engine.network import EmbeddingCache, Network
from lib.engine.runtime import Runtime
from lib.errors import TrainingError
from lib.trainers import distributed
from lib.trainers.config import Preset, TrainOptions
from lib.trainers.sampler import Batch, PrefetchedBatches, Sampler
from lib.trainers.training_step import Losses, LossWeights, TrainingStep

logger = logging.getLogger(__name__)

# Gradient norm limit; the first steps on a new kind of image exceed it.
LONGEST_GRADIENT = 1.0
OCCLUSION_HEAD = "pred_obj_score_head"
# Learning rate at the end of the training as a share of the initial one.
LAST_RATE = 0.1
# Consecutive NaN losses before training aborts.
HOPELESS_STEPS = 10
# Steps over which the weights are averaged; fewer at the beginning, since early steps are worse.
AVERAGED_STEPS = 100
_FIRST_STEPS = 10
# Parts of the way from start weights to learned weights; each costs one validation.
SHARES = (1.0, 0.6, 0.3)

# Two convolutions of the mask decoder run in the image encoder, on its fine maps: their results are part of
# the cached embeddings, so they cannot be trained with a frozen encoder.
_RUN_IN_ENCODER = ("sam_mask_decoder.conv_s0", "sam_mask_decoder.conv_s1")
_TRUNK = "image_encoder.trunk."
_MODULES: dict[Preset, tuple[str, ...]] = {
    "paper": ("image_encoder", "sam_mask_decoder"),
    "decoder": ("sam_mask_decoder",),
    "video": ("image_encoder", "sam_mask_decoder", "memory_attention", "memory_encoder"),
}

Parameters = Mapping[str, torch.Tensor]
Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


def trains(name: str, preset: Preset) -> bool:
    """Whether a preset trains the parameter of this name. No preset trains the prompt encoder."""
    if preset == "decoder" and name.startswith(_RUN_IN_ENCODER):
        return False
    return name.split(".")[0] in _MODULES[preset]


def prepare(network: Network, preset: Preset) -> None:
    """Enables gradients and training mode for the trained modules only.

    The network itself stays in evaluation mode: in training mode it would sample memories at random and
    decode three masks.
    """
    network.eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trains(name, preset))
    for module in _MODULES[preset]:
        getattr(network, module).train()


def trained_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters with gradients."""
    return ((name, value) for name, value in network.named_parameters() if value.requires_grad)


def copy_parameters(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the trained parameters on the CPU, by name."""
    return {name: value.detach().cpu().clone() for name, value in trained_parameters(network)}


def parameter_groups(network: Network, options: TrainOptions) -> list[dict[str, object]]:
    """Trained parameters for AdamW, grouped by learning rate and weight decay.

    Each layer of the trunk has ``layer_decay`` times the rate of the layer above (Clark et al. 2020, ELECTRA;
    SAM 2 is fine-tuned with 0.9). Biases, norms and embeddings have no weight decay. ``initial_lr`` is the
    rate that the schedule scales.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    trunk = network.image_encoder.trunk
    for name, parameter in trained_parameters(network):
        depth = 0
        if name.startswith(_TRUNK):
            depth = trunk.get_num_layers() + 1 - int(trunk.get_layer_id(name.removeprefix(_TRUNK)))
        is_decayed = parameter.ndim > 1 and "pos_embed" not in name and "token" not in name
        rate = options.learning_rate * options.layer_decay**depth
        groups[rate, options.weight_decay if is_decayed else 0.0].append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


class NetworkOptimizer:
    """Optimises a network step by step, in place.

    The cache of embeddings is used while the encoder is frozen.

    Attributes:
        network: Network after the last step.
        average: Exponential moving average of the network's weights, which is validated and published: it is
            better than the weights of any single step (Polyak and Juditsky 1992).
        steps: Number of steps so far.
    """

    def __init__(
        self,
        network: Network,
        options: TrainOptions,
        sampler: Sampler,
        runtime: Runtime,
        embeddings: EmbeddingCache,
    ):
        torch.manual_seed(options.seed)
        self.network = network.to(runtime.device)
        self._options = options
        self._batches = PrefetchedBatches(sampler, with_images=not options.is_encoder_frozen)
        self._runtime = runtime
        prepare(network, options.preset)
        self._optimizer = torch.optim.AdamW(parameter_groups(network, options))
        weights = LossWeights(
            options.dice_weight, options.bce_weight, options.occlusion_weight, options.iou_weight
        )
        self._step = TrainingStep(network, weights, embeddings if options.is_encoder_frozen else None)
        self.average = AveragedModel(network, multi_avg_fn=_moving_average)
        self.average.eval()
        self._parts = options.accumulation  # number of parts of a batch, doubled when memory runs out
        self._hopeless = 0
        self.steps = 0

    def advance(self, progress: float) -> dict[str, float]:
        """Makes one step.

        Args:
            progress: Completed share of the training, 0 to 1.

        Returns:
            Losses by name, and the learning rate.

        Raises:
            TrainingError: The losses are NaN, or the memory is too small for a single frame.
        """
        number = self.steps * distributed.world() + distributed.rank()
        batch = self._batches.next(number)
        losses = self._accumulate(batch, number)
        distributed.average_gradients(parameter for _, parameter in trained_parameters(self.network))
        rate = self._set_rate(progress)
        if self._clip_gradients():
            self._optimizer.step()
            self.average.update_parameters(self.network)
            self._hopeless = 0
        else:
            self._hopeless += 1
            logger.warning("Step %d skipped: its gradient is not finite", self.steps)
        if self._hopeless >= HOPELESS_STEPS:
            raise TrainingError("Training diverged: its losses are not finite; lower learning_rate")
        self.steps += 1
        return {**losses, "learning_rate": rate}

    @property
    def averaged_network(self) -> Network:
        """The network with averaged weights, in evaluation mode."""
        return cast(Network, self.average.module)

    def averaged_parameters(self) -> dict[str, torch.Tensor]:
        """Averages of the trained parameters by name."""
        return {name: value.detach() for name, value in trained_parameters(self.averaged_network)}

    def state(self) -> dict[str, Any]:
        """State for ``restore``, on the CPU."""
        return {
            "network": copy_parameters(self.network),
            "average": copy_parameters(self.averaged_network),
            "averaged_steps": int(self.average.n_averaged),
            "optimizer": self._optimizer.state_dict(),
            "steps": self.steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a state."""
        self.network.load_state_dict(state["network"], strict=False)
        self.averaged_network.load_state_dict(state["average"], strict=False)
        self.average.n_averaged.fill_(state["averaged_steps"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]

    def _clip_gradients(self) -> bool:
        """Clips the gradients; False if they are not finite.

        The occlusion head is clipped separately: it is very sure at first, and a single empty frame would
        reduce all other gradients to nothing.
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

    def _accumulate(self, batch: Batch, number: int) -> dict[str, float]:
        """Gradients of a batch, in as many parts as the memory requires."""
        while True:
            try:
                self._optimizer.zero_grad(set_to_none=True)
                sums: dict[str, float] = defaultdict(float)
                for index, part in enumerate(batch.parts(self._parts)):
                    share = len(part.samples) / max(1, len(batch.samples))
                    for name, value in self._backward(part, share, [number, index]).items():
                        sums[name] += share * value
                return dict(sums)
            except torch.OutOfMemoryError as error:
                self._optimizer.zero_grad(set_to_none=True)
                self._split_further(len(batch.clips), error)

    def _split_further(self, clips: int, error: Exception) -> None:
        if self._parts >= clips:
            raise TrainingError(
                f"Out of memory with a single frame on {self._runtime.device}: choose a smaller image_size "
                "or fewer objects_per_frame, preset decoder, or device cpu"
            ) from error
        self._parts = min(2 * self._parts, clips)
        torch.cuda.empty_cache()
        frames = math.ceil(clips / self._parts)
        logger.warning("Out of memory: continuing with %d frames at a time, %d parts", frames, self._parts)

    def _backward(self, batch: Batch, share: float, seed: list[int]) -> dict[str, float]:
        with self._training_context():
            if batch.length > 1:
                losses = self._step.clip_losses(batch)
            else:
                rng = np.random.default_rng([self._options.seed, 2, *seed])
                losses = self._step.image_losses(batch, rng)
            if not losses:
                return {}
            mean = Losses.mean(losses)
            (share * mean.total).backward()
        return mean.to_floats()

    @contextlib.contextmanager
    def _training_context(self) -> Iterator[None]:
        runtime = self._runtime
        # fp16 would need gradient scaling; without bf16 the training uses 32 bits.
        half = runtime.dtype == torch.bfloat16
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.autocast(runtime.type, dtype=torch.bfloat16, enabled=half))
            if runtime.type == "cpu":
                # On CPUs the backward pass of fused attention takes 2.5 times that of two matrix products.
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield

    def _set_rate(self, progress: float) -> float:
        """Sets the learning rate: linear warm-up, then half a cosine."""
        options = self._options
        warm = min(1.0, (self.steps + 1) / max(1, options.warmup_steps))
        cosine = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * warm * cosine
        return options.learning_rate * warm * cosine


@torch.no_grad()
def _moving_average(averaged: Tensors, current: Tensors, count: torch.Tensor | int) -> None:
    """Exponential moving average over ``AVERAGED_STEPS``, over fewer at the beginning."""
    step = int(count)
    keep = min(1 - 1 / AVERAGED_STEPS, (1 + step) / (_FIRST_STEPS + step))
    torch._foreach_lerp_(averaged, current, 1 - keep)


def interpolate_weights(
    network: Network, start: Parameters, learned: Parameters, score: Callable[[Network], Any]
) -> float:
    """Sets the best weights between start and learned ones (Wortsman et al. 2022, WiSE-FT).

    Few labels improve what they show and slightly damage everything else; weights between the two keep most
    of the gain with little of the loss. A larger score is better.

    Returns:
        Share of the learned weights, 0 to 1.
    """
    scores = {}
    for share in SHARES:
        _set_between(network, start, learned, share)
        scores[share] = score(network)
    best = max(SHARES, key=lambda share: scores[share])
    _set_between(network, start, learned, best)
    return best


def _set_between(network: Network, start: Parameters, learned: Parameters, share: float) -> None:
    mixed = {name: torch.lerp(start[name], value, share) for name, value in learned.items()}
    network.load_state_dict(mixed, strict=False)
