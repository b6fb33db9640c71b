"""The network of a simulation: trained anew in each round, on embeddings that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lib.activelearning.candidate import Candidate
from lib.engine.builder import described, load_network
from lib.engine.checkpoints import named_weights, sha256_of
from lib.engine.embeddings import EmbeddingCache
from lib.engine.network import Network
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime, resolve_device
from lib.evaluation.active_learning.options import CurveOptions
from lib.metrics.overlap import dice
from lib.scoring.signals.embedding import Vector, frame_vector, mean_vector
from lib.scoring.signals.grid import GridSource
from lib.scoring.signals.scorer import ScorePlan, score_image, spread
from lib.settings import Settings
from lib.trainers.frames import LabelledFrames
from lib.trainers.learner import Learner
from lib.trainers.options import Preset, TrainOptions
from lib.trainers.parameters import prepare, trained_parameters
from lib.trainers.sampler import Sampler
from lib.trainers.validation import BOX, CLICK, CLICKS, Target

# Prompts whose Dice is averaged, as a training judges itself; following objects through volumes takes long.
MEASURED = (CLICK, CLICKS, BOX)
# A small look: it is done for every image of the pool in every round.
_LOOK = ScorePlan(slices=3, jitters=3)
_PRESET: Preset = "decoder"
_MIB = 1 << 20


class Pupil:
    """A network that learns from units, is measured, and says what it is unsure of.

    The image encoder is frozen, so embeddings are kept from round to round and from seed to seed.

    Args:
        options: of the simulation.

    Raises:
        CheckpointError: the weights are absent, damaged or of another architecture.
        DeviceError: the device does not exist here.
    """

    def __init__(self, options: CurveOptions):
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
        # What is made for service cannot be learned from: it knows of no gradient. So there are two.
        self._of_service, self._of_training = EmbeddingCache(budget), EmbeddingCache(budget)
        prepare(self._network, _PRESET)
        self._first = {name: value.detach().clone() for name, value in trained_parameters(self._network)}

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels."""
        return int(self._network.image_size)

    def describe(self) -> dict[str, object]:
        """What the results depend on."""
        return {
            "sha256": self.sha256,
            "image_size": self.image_size,
            "device": self._runtime.type,
            "precision": str(self._runtime.dtype).removeprefix("torch."),
        }

    def untrained(self) -> Predictor:
        """The weights that every training begins with; valid until the next training."""
        self._reset()
        return self._predictor()

    def learn(self, units: Sequence[LabelledFrames], seed: int) -> Predictor:
        """Trains the decoder from its first state; the result is valid until the next call.

        Args:
            units: labelled ones.
            seed: of everything that is drawn.
        """
        self._reset()
        options = self._train_options(seed)
        sampler = Sampler(
            units, self.image_size, options.objects_per_frame, options.empty_frames, True, options.seed
        )
        learner = _Learner(self._network, options, sampler, self._runtime, self._of_training)
        steps = self._options.steps
        for step in range(1, steps + 1):
            learner.advance(step / steps)
        self._network.load_state_dict(learner.average.values, strict=False)
        return self._predictor()

    def _train_options(self, seed: int) -> TrainOptions:
        options = self._options
        return TrainOptions(
            preset=_PRESET,
            image_size=self.image_size,
            batch_size=options.batch,
            learning_rate=options.learning_rate,
            warmup_steps=max(1, options.steps // 8),
            # Following objects takes several times as long, and is not measured.
            clip_share=0.0,
            seed=seed,
        )

    def _reset(self) -> None:
        self._network.load_state_dict(self._first, strict=False)

    def _predictor(self) -> Predictor:
        self._network.eval()
        return Predictor(self._network, self._runtime, self._of_service, self.weights, self.sha256)

    def vector(self, unit: LabelledFrames) -> Vector:
        """The embedding of a unit, ``(C,)``: the same in every round."""
        places = spread(len(unit), _LOOK.slices)
        features = (self._service.features(unit, place) for place in places)
        return mean_vector([frame_vector(item) for item in features])

    @cached_property
    def _service(self) -> Predictor:
        return self._predictor()


class _Learner(Learner):
    """A learner whose embeddings outlive it."""

    def __init__(
        self,
        network: Network,
        options: TrainOptions,
        sampler: Sampler,
        runtime: Runtime,
        embeddings: EmbeddingCache,
    ):
        super().__init__(network, options, sampler, runtime, embedding_budget=0)
        self._teacher = replace(self._teacher, embeddings=embeddings)


@dataclass(frozen=True)
class Measured:
    """Mean Dice over the test objects.

    Attributes:
        dice: over all prompts.
        by_prompt: by kind of prompt.
    """

    dice: float
    by_prompt: dict[str, float]


def measure(predictor: Predictor, targets: Sequence[Target]) -> Measured:
    """Dice of a network on the test objects, each with one click, three clicks and a box."""
    means = {}
    for kind in MEASURED:
        values = []
        for target in targets:
            image = target.image
            found = predictor.segment(image, target.frame, target.prompts[kind])
            values.append(dice(found.mask, target.truth))
        means[kind] = float(np.mean(values))
    return Measured(float(np.mean(list(means.values()))), means)


def score(predictor: Predictor, unit: LabelledFrames, vector: Vector | None) -> Candidate:
    """What the network says of a unit whose label nobody has seen yet."""
    found = score_image(predictor, unit, [GridSource()], _LOOK)
    return Candidate(unit.id, found.score, vector, found.labels, found.slice_index)
