"""Simulated annotation: label, train, test, choose what to label next, and repeat.

The labels of a datastore replace the annotator. Every seed starts with its own image, the same for all
strategies, so that strategies can be compared by seed; the strategy chooses all other images.
"""

from __future__ import annotations

import fnmatch
import logging
import math
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lib.activelearning.selectors import SELECTORS, Candidate
from lib.engine.builder import described, load_network
from lib.engine.checkpoints import named_weights, sha256_of
from lib.engine.network import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime, resolve_device
from lib.errors import BioSam2Error, EvaluationError
from lib.evaluation.cases import labelled_files
from lib.evaluation.learning_curves import CurvePoint, points_file, write_curve
from lib.evaluation.options import SimulationOptions, Unit, parse_simulation_options
from lib.evaluation.runner import facts_hash, run_facts
from lib.metrics.segmentation import dice
from lib.scoring.image_scorer import ScorePlan, score_image, spread
from lib.scoring.prompt_sources import GridSource
from lib.scoring.signals import Vector, frame_vector, mean_vector
from lib.settings import Settings
from lib.trainers.config import Preset, TrainOptions
from lib.trainers.frames import LabelledFrames, LabelledImage, prepare_frames
from lib.trainers.optimizer import NetworkOptimizer, prepare, trained_parameters
from lib.trainers.sampler import Sampler, visible_objects
from lib.trainers.validation import BOX, CLICK, CLICKS, ValidationTarget, choose_targets

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


logger = logging.getLogger(__name__)

# The test set is the same for all seeds, strategies and runs.
_SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class SliceUnit(LabelledFrames):
    """One slice of a volume as an image."""

    place: int = 0

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The slice, uint8 (H, W, 3)."""
        return super().__getitem__(self.place)

    def mask(self, index: int, value: int) -> NDArray[np.bool_]:
        """Mask of an object on the slice, (H, W)."""
        return super().mask(self.place, value)


@dataclass(frozen=True)
class SimulationData:
    """The images of a simulation: units to label, test images, and the reason of each image left out."""

    pool: tuple[LabelledFrames, ...]
    test: tuple[LabelledFrames, ...]
    left_out: dict[str, str]


def open_data(data: Path, frames: Path, unit: Unit, test: str, image_size: int) -> SimulationData:
    """Opens every labelled image of a datastore and splits them into pool and test set.

    Units whose objects are too small for the network's input are left out.

    Raises:
        EvaluationError: the pool has fewer than two units, or the test set no image.
    """
    images, left_out = _open_images(data, frames)
    measured = choose_test([image.id for image in images], test)
    pool = [part for image in images if image.id not in measured for part in _units(image, unit)]
    parts = SimulationData(
        tuple(part for part in pool if _is_visible(part, image_size)),
        tuple(image for image in images if image.id in measured and _is_visible(image, image_size)),
        left_out,
    )
    if len(parts.pool) < 2 or not parts.test:
        raise EvaluationError(
            f"{data} has {len(parts.pool)} {unit}(s) to label and {len(parts.test)} image(s) to test, but 2 "
            f"and 1 are needed: label more images, or choose another --test than {test!r}"
        )
    return parts


def choose_test(names: Sequence[str], test: str) -> set[str]:
    """The images of the test set.

    Args:
        names: Names of all images.
        test: A share of them (at least one image), or a file name pattern such as ``test*``.

    Raises:
        EvaluationError: a share is not between 0 and 1.
    """
    try:
        share = float(test)
    except ValueError:
        return set(fnmatch.filter(names, test))
    if not 0 < share < 1:
        raise EvaluationError(f"--test {test} must be a share between 0 and 1, or a pattern such as 'test*'")
    order = np.random.default_rng(_SPLIT_SEED).permutation(sorted(names))
    return set(order[: math.ceil(share * len(names))].tolist())


def _open_images(data: Path, frames: Path) -> tuple[list[LabelledFrames], dict[str, str]]:
    found, left_out = [], {}
    files = [LabelledImage(name, image, label) for name, image, label in labelled_files(data) if image]
    for case in tqdm(files, desc="Opening labelled images", disable=None):
        try:
            found.append(prepare_frames(case, frames, Settings().max_voxels))
        except BioSam2Error as error:
            logger.warning("Left out: %s: %s", case.id, error)
            left_out[case.id] = str(error)
    return found, left_out


def _units(image: LabelledFrames, unit: Unit) -> list[LabelledFrames]:
    if unit == "image":
        return [image]
    return [
        SliceUnit(
            id=f"{image.id}#{place:03}",
            digest=f"{image.digest}#{place}",
            height=image.height,
            width=image.width,
            spacing=image.spacing,
            objects=(objects,),
            names=image.names,
            folder=image.folder,
            place=place,
        )
        for place, objects in enumerate(image.objects)
    ]


def _is_visible(image: LabelledFrames, image_size: int) -> bool:
    return any(visible_objects(image, index, image_size) for index in range(len(image)))


POINTS_FILE, FRAMES_FOLDER = "curve.csv", "frames"
# Increased whenever the same options give other numbers, so that old points are not reused.
PROTOCOL = 1
# Strategies that use the network's uncertainty; it is computed for no other.
_READ_SCORES = ("uncertainty", "hybrid")
# Seeds the choice of the first unit, together with the simulation's seed.
_FIRST = 1_000_000


def run_active_learning(arguments: Sequence[str]) -> str:
    """Simulates what is not in ``curve.csv`` yet and writes the results.

    Returns:
        The tables in Markdown.

    Raises:
        EvaluationError: the options or the datastore cannot be used.
        KeyboardInterrupt: all finished trainings are on the disk.
    """
    options = parse_simulation_options(arguments)
    simulation = Simulation(options)
    points = simulation.run()
    return write_curve(points, options, simulation.facts())


class Simulation:
    """All simulated annotations of one set of options."""

    def __init__(self, options: SimulationOptions):
        self._options = options
        self._learner = SimulatedLearner(options)
        size = self._learner.image_size
        self._data = open_data(options.data, options.output / FRAMES_FOLDER, options.unit, options.test, size)
        self._units = {unit.id: unit for unit in self._data.pool}
        self._targets = choose_targets(self._data.test, size, options.objects)
        self._points = points_file(options.output / POINTS_FILE)

    @property
    def data(self) -> SimulationData:
        """The pool and the test set."""
        return self._data

    def facts(self) -> dict[str, object]:
        """Facts about the simulation for readers of the results."""
        return {
            "run": self.run_name,
            "weights": self._learner.weights,
            **self._learner.describe(),
            "pool": len(self._data.pool),
            "test": sorted(image.id for image in self._data.test),
            "objects": len(self._targets),
            "left_out": self._data.left_out,
        }

    @cached_property
    def run_name(self) -> str:
        """Hash of everything that decides the value of a point besides strategy and seed, 16 hex digits."""
        return facts_hash(
            {
                "protocol": PROTOCOL,
                "learner": self._learner.describe(),
                "options": self._options.deciding(),
                "pool": [unit.digest for unit in self._data.pool],
                "test": [image.digest for image in self._data.test],
            }
        )

    def run(self) -> list[CurvePoint]:
        """All points, computed now or before, by strategy, seed and labels."""
        options, most = self._options, len(self._units)
        # Numbers of labels at which the network is trained, at most the size of the pool.
        wanted = range(options.start, options.start + options.rounds * options.step + 1, options.step)
        counts = [count for count in wanted if count <= most] or [most]
        annotations = [(name, seed) for seed in range(options.seeds) for name in options.strategies]
        found: list[CurvePoint] = []
        with tqdm(
            total=len(annotations) * len(counts), unit="training", disable=None, file=sys.stderr
        ) as bar:
            for strategy, seed in annotations:
                bar.set_postfix_str(f"{strategy}, seed {seed}")
                for point in self._annotate(strategy, seed, counts):
                    found.append(point)
                    bar.update()
        order: dict[str, int] = {name: place for place, name in enumerate(options.strategies)}
        return sorted(found, key=lambda point: (order[point.strategy], point.seed, point.labels))

    def _annotate(self, strategy: str, seed: int, counts: Sequence[int]) -> Iterator[CurvePoint]:
        """The points of one simulated annotation."""
        labelled: list[str] = []
        for count, after in zip(counts, [*counts[1:], None], strict=True):
            more = 0 if after is None else after - count
            point = self._points.get((self.run_name, strategy, seed, count))
            # The last point of a simulation with fewer rounds has no next units.
            if point is None or (more and not point.next):
                names = labelled or self._begin(strategy, seed, count)
                point = self._train_and_choose(strategy, seed, names, more)
                self._points.append([point])
            labelled = [*point.labelled, *point.next]
            yield point

    def _begin(self, strategy: str, seed: int, count: int) -> list[str]:
        """Units labelled before the first training: one at random, the others chosen by the strategy."""
        names = sorted(self._units)
        first = names[int(np.random.default_rng([seed, _FIRST]).integers(len(names)))]
        scores = self._first_scores if strategy in _READ_SCORES else {}
        return [first, *self._choose(strategy, seed, [first], scores, count - 1)]

    def _train_and_choose(self, strategy: str, seed: int, labelled: Sequence[str], more: int) -> CurvePoint:
        started = time.monotonic()
        predictor = self._learner.learn([self._units[name] for name in labelled], seed)
        measured = measure(predictor, self._targets)
        scores = self._scores(predictor, labelled) if more and strategy in _READ_SCORES else {}
        return CurvePoint(
            run=self.run_name,
            strategy=strategy,
            seed=seed,
            labels=len(labelled),
            dice=measured.dice,
            by_prompt=measured.by_prompt,
            labelled=tuple(labelled),
            next=tuple(self._choose(strategy, seed, labelled, scores, more)),
            seconds=time.monotonic() - started,
        )

    def _choose(
        self,
        strategy: str,
        seed: int,
        labelled: Sequence[str],
        scores: Mapping[str, Candidate],
        count: int,
    ) -> list[str]:
        """Units that a strategy labels next."""
        rng = np.random.default_rng([seed, len(labelled)])
        done = [self._known[name] for name in labelled]
        pool = [scores.get(name, known) for name, known in self._known.items() if name not in set(labelled)]
        return [choice.id for choice in SELECTORS[strategy]().rank(pool, done, rng)[:count]]

    def _scores(self, predictor: Predictor, labelled: Collection[str]) -> dict[str, Candidate]:
        """Candidates with the network's uncertainty for all units without a label."""
        names = [name for name in self._units if name not in labelled]
        vectors = {name: self._known[name].embedding for name in names}
        return {name: score(predictor, self._units[name], vectors[name]) for name in names}

    @cached_property
    def _first_scores(self) -> dict[str, Candidate]:
        """Candidates with the uncertainty of the untrained network, the same in every simulation."""
        return self._scores(self._learner.untrained(), ())

    @cached_property
    def _known(self) -> dict[str, Candidate]:
        """Candidates with embeddings only, for all units."""
        return {name: Candidate(name, None, self._learner.vector(unit)) for name, unit in self._units.items()}
