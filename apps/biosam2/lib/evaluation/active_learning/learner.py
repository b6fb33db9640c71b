"""The network of a simulation: trained from the start in each round, on embeddings that are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lib.activelearning.selectors import Candidate
from lib.engine.builder import described, load_network
from lib.engine.checkpoints import named_weights, sha256_of
from lib.engine.network import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime, resolve_device
from lib.evaluation.options import SimulationOptions
from lib.evaluation.runner import run_facts
from lib.metrics.segmentation import dice
from lib.scoring.image_scorer import ScorePlan, score_image, spread
from lib.scoring.prompt_sources import GridSource
from lib.scoring.signals import Vector, frame_vector, mean_vector
from lib.settings import Settings
from lib.trainers.config import Preset, TrainOptions
from lib.trainers.frames import LabelledFrames
from lib.trainers.optimizer import NetworkOptimizer, prepare, trained_parameters
from lib.trainers.sampler import Sampler
from lib.trainers.validation import BOX, CLICK, CLICKS, ValidationTarget

# Kinds of prompts whose mean Dice is the result, as in a training's validation; propagation takes too long.
MEASURED = (CLICK, CLICKS, BOX)
# A small scoring plan: every unit of the pool is scored in every round.
_SCORE_PLAN = ScorePlan(slices=3, jitters=3)
_PRESET: Preset = "decoder"
_MIB = 1 << 20


class SimulatedLearner:
    """A network that learns from units, is tested, and scores units by its uncertainty.

    The image encoder is frozen, so embeddings are kept for all rounds and seeds.
    """

    def __init__(self, options: SimulationOptions):
        settings = Settings(device=options.device, image_size=options.image_size, model_dir=options.model_dir)
        registry = Registry(options.model_dir)
        self._options = options
        self._runtime = Runtime(resolve_device(options.device), settings.precision)
        kind = self._runtime.type
        named = named_weights(options.weights, settings, registry, kind, "named by --weights")
        weights = replace(described(named, registry, kind), single_mask=True, meta_settings=False)
        self.weights, self.sha256 = weights.name, weights.sha256 or sha256_of(weights.path)
        self._network = load_network(weights, registry, kind)
        budget = settings.embedding_cache_mb * _MIB
        # Two caches: embeddings made for inference have no gradient, so training cannot use them.
        self._inference, self._training = EmbeddingCache(budget), EmbeddingCache(budget)
        prepare(self._network, _PRESET)
        self._first = {name: value.detach().clone() for name, value in trained_parameters(self._network)}

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels."""
        return int(self._network.image_size)

    def describe(self) -> dict[str, object]:
        """What the results depend on."""
        return {"sha256": self.sha256, **run_facts(self._runtime, self.image_size)}

    def untrained(self) -> Predictor:
        """The initial weights; valid until the next training."""
        self._reset()
        return self._predictor()

    def learn(self, units: Sequence[LabelledFrames], seed: int) -> Predictor:
        """Trains the decoder from its initial weights; the result is valid until the next call."""
        self._reset()
        options = self._train_options(seed)
        sampler = Sampler(units, self.image_size, options)
        optimizer = NetworkOptimizer(self._network, options, sampler, self._runtime, self._training)
        steps = self._options.steps
        for step in range(1, steps + 1):
            optimizer.advance(step / steps)
        self._network.load_state_dict(optimizer.averaged_parameters(), strict=False)
        return self._predictor()

    def vector(self, unit: LabelledFrames) -> Vector:
        """The embedding of a unit, ``(C,)``: equal in all rounds."""
        places = spread(len(unit), _SCORE_PLAN.slices)
        features = (self._encoder.features(unit, place) for place in places)
        return mean_vector([frame_vector(item) for item in features])

    @cached_property
    def _encoder(self) -> Predictor:
        return self._predictor()

    def _train_options(self, seed: int) -> TrainOptions:
        options = self._options
        return TrainOptions(
            preset=_PRESET,
            image_size=self.image_size,
            batch_size=options.batch,
            learning_rate=options.learning_rate,
            warmup_steps=max(1, options.steps // 8),
            # Propagation takes several times as long and is not tested.
            clip_share=0.0,
            seed=seed,
        )

    def _reset(self) -> None:
        self._network.load_state_dict(self._first, strict=False)

    def _predictor(self) -> Predictor:
        self._network.eval()
        return Predictor(self._network, self._runtime, self._inference, self.weights, self.sha256)


@dataclass(frozen=True)
class PromptDice:
    """Mean Dice over the test objects."""

    dice: float
    by_prompt: dict[str, float]


def measure(predictor: Predictor, targets: Sequence[ValidationTarget]) -> PromptDice:
    """Dice of a network on the test objects, with one click, three clicks and a box each."""
    means = {}
    for kind in MEASURED:
        values = []
        for target in targets:
            image = target.image
            found = predictor.segment(image, target.frame, target.prompts[kind])
            values.append(dice(found.mask, target.truth))
        means[kind] = float(np.mean(values))
    return PromptDice(float(np.mean(list(means.values()))), means)


def score(predictor: Predictor, unit: LabelledFrames, vector: Vector | None) -> Candidate:
    """A unit with the uncertainty of a network, computed without its label."""
    found = score_image(predictor, unit, [GridSource()], _SCORE_PLAN)
    return Candidate(unit.id, found.score, vector, found.labels, found.slice_index)
