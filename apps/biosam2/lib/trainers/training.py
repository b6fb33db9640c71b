"""One training from its first label to its last word. Every process of it runs this."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, replace
from typing import Any

import torch
from tqdm import tqdm

from lib.engine.builder import load_network
from lib.engine.checkpoints import Weights
from lib.engine.embeddings import EmbeddingCache
from lib.engine.interactive_priority import InteractivePriority
from lib.engine.model_versions import save_tensors
from lib.engine.network import Network
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import Runtime, resolve_device
from lib.errors import BioSam2Error, TrainingError
from lib.trainers import distributed
from lib.trainers.acceptance import judge
from lib.trainers.config import TrainingPlan
from lib.trainers.data_split import Side, split
from lib.trainers.errors import plain_errors
from lib.trainers.frames import LabelledFrames, prepare_frames
from lib.trainers.learner import Learner
from lib.trainers.parameters import prepare, trained_parameters
from lib.trainers.progress import Progress
from lib.trainers.publishing import publish
from lib.trainers.sampler import Sampler
from lib.trainers.training_state import Course
from lib.trainers.validation import Measurement, Target, choose_targets, measure
from lib.trainers.weight_interpolation import blend

logger = logging.getLogger(__name__)

# An epoch of a large dataset ends here, so that people see numbers.
LONGEST_EPOCH = 200
_MIB = 1 << 20


def train(plan: TrainingPlan) -> None:
    """Trains, measures and publishes.

    Raises:
        TrainingError: with a reason that a person can act on. What was served is served still.
    """
    progress = None
    if distributed.rank() == 0:
        progress = Progress(plan.folder, plan.options.max_epochs, plan.started)
    try:
        with plain_errors(plan.frames_folder):
            Training(plan, progress).run()
    except Exception as error:
        if progress is not None:
            reason = str(error) if isinstance(error, TrainingError) else f"{type(error).__name__}: {error}"
            progress.end("failed", reason)
        raise


class Training:
    """One training in one process.

    Args:
        plan: of the training.
        progress: of the first process; None in the others.
    """

    def __init__(self, plan: TrainingPlan, progress: Progress | None):
        self._plan = plan
        self._options = plan.options
        self._progress = progress
        self._runtime = Runtime(distributed.own_device(resolve_device(plan.device)), plan.precision)
        self._registry = Registry(plan.model_dir)
        self._courtesy = InteractivePriority(plan.model_dir)
        self._course = Course()
        self._before = Measurement({})
        frozen = plan.options.preset == "decoder"
        self._embeddings = EmbeddingCache(plan.embedding_cache_mb * _MIB) if frozen else None

    def run(self) -> None:
        """From the labels to the verdict."""
        images, sides, left_out = distributed.from_first(self._open_images() if self._progress else None)
        learning = [image for image in images if sides[image.id] == "train"]
        network = self._load(replace(self._plan.weights, single_mask=True, meta_settings=False))
        size = int(network.image_size)
        sampler = Sampler(
            learning,
            size,
            self._options.objects_per_frame,
            self._options.empty_frames,
            self._options.preset == "decoder",
            self._options.seed,
        )
        targets = choose_targets(
            [image for image in images if sides[image.id] == "val"], size, self._options.val_objects
        )
        _require(sampler, targets)
        self._before = self._measure_before(targets)
        learner = Learner(
            network, self._options, sampler, self._runtime, self._plan.embedding_cache_mb * _MIB
        )
        start = {name: value.detach().cpu().clone() for name, value in trained_parameters(network)}
        fingerprint = self._plan.fingerprint([image.digest for image in images])
        self._resume(learner, fingerprint)
        self._learn(learner, sampler, targets, fingerprint)
        if self._progress is not None:
            self._course.blend = blend(
                network, start, self._course.best or start, lambda mixed: self._worth(mixed, targets)
            )
            publish(
                self._plan,
                network,
                self._before,
                lambda weights: self._measure(self._load(weights), targets, "the new weights"),
                self._course,
                self._facts(images, sides, left_out),
                self._progress,
            )
            self._tidy()

    def _open_images(self) -> tuple[list[LabelledFrames], dict[str, Side], list[dict[str, str]]]:
        """The images that can be used, their sides, and those that cannot be used with the reason."""
        assert self._progress is not None
        images, left_out = [], []
        for case in tqdm(self._plan.cases, desc="Opening labelled images", disable=None):
            try:
                images.append(prepare_frames(case, self._plan.frames_folder, self._plan.max_voxels))
            except BioSam2Error as error:
                logger.warning("Left out of the training: %s: %s", case.id, error)
                left_out.append({"image": case.id, "reason": str(error)})
        sides = split((image.id for image in images), self._options.val_split, self._plan.split_record)
        counts = {side: list(sides.values()).count(side) for side in ("train", "val")}
        self._progress.note(
            f"learning from {counts['train']} images, measuring on {counts['val']}, {len(left_out)} left out",
            images=counts,
            left_out=left_out,
        )
        return images, sides, left_out

    def _load(self, weights: Weights) -> Network:
        if self._options.image_size:
            weights = replace(weights, image_size=self._options.image_size)
        return load_network(weights, self._registry, self._runtime.type)

    def _measure_before(self, targets: list[Target]) -> Measurement:
        if self._progress is None:
            return Measurement({})
        network = load_network(self._plan.service, self._registry, self._runtime.type)
        before = self._measure(network, targets, "the weights in service")
        self._progress.note(
            f"in service is {self._plan.service.name}, with a Dice of {before.score:.3f} on "
            f"{len(targets)} held-out objects",
            before={"dice": before.score, **before.means},
        )
        return before

    def _measure(
        self, network: Network, targets: list[Target], what: str, kept: EmbeddingCache | None = None
    ) -> Measurement:
        """Measures a network as it is in service; with kept embeddings where its encoder is frozen."""
        version = what if kept is None else "frozen encoder"
        embeddings = kept if kept is not None else EmbeddingCache(self._plan.embedding_cache_mb * _MIB)
        predictor = Predictor(network, self._runtime, embeddings, "validation", version)
        steps = tqdm(measure(predictor, targets), desc=f"Measuring {what}", disable=None)
        *_, last = steps
        assert last is not None
        return last

    def _learn(self, learner: Learner, sampler: Sampler, targets: list[Target], fingerprint: str) -> None:
        """Epochs, until they are done, no better any more, or out of time."""
        options, course = self._options, self._course
        steps = options.steps_per_epoch or min(
            LONGEST_EPOCH, -(-len(sampler.labelled) // (options.batch_size * distributed.world()))
        )
        while not distributed.from_first(self._is_over()):
            started = time.monotonic()
            sums: dict[str, float] = {}
            for done in range(1, steps + 1):
                self._courtesy.give_way()
                # One clock for all processes: by their own they would learn at different rates.
                share = distributed.from_first(self._share_done(done / steps, started))
                losses = learner.advance(share)
                sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
                if share >= 1.0:
                    break
            course.epoch += 1
            if self._progress is not None:
                self._after_epoch(
                    learner, targets, {name: value / done for name, value in sums.items()}, started
                )
                self._save(learner, fingerprint)

    def _after_epoch(
        self, learner: Learner, targets: list[Target], losses: dict[str, float], started: float
    ) -> None:
        course, network = self._course, learner.network
        with learner.average.in_place():
            network.eval()
            measurement = self._measure(network, targets, f"epoch {course.epoch}", self._embeddings)
            prepare(network, self._options.preset)
        would_be_published, score = self._judged(measurement)
        if (would_be_published, score) > (course.best_is_publishable, course.best_score):
            course.best = {name: value.cpu().clone() for name, value in learner.average.values.items()}
            course.best_score, course.best_epoch = score, course.epoch
            course.best_is_publishable = would_be_published
        seconds = time.monotonic() - started
        course.seconds += seconds
        course.history.append(
            {"epoch": course.epoch, "loss": losses, "means": measurement.means, "score": score}
        )
        assert self._progress is not None
        self._progress.epoch(course.epoch, losses, measurement.means, score, seconds)

    def _worth(self, network: Network, targets: list[Target]) -> tuple[bool, float]:
        network.eval()
        return self._judged(self._measure(network, targets, "a blend", self._embeddings))

    def _judged(self, measurement: Measurement) -> tuple[bool, float]:
        """Whether weights would be published, and their score: weights that would not are worth less."""
        return judge(self._before, measurement, self._options.min_gain).publish, measurement.score

    def _is_over(self) -> bool:
        options, course = self._options, self._course
        stale = course.epoch - course.best_epoch
        return (
            course.epoch >= options.max_epochs
            or course.seconds >= options.limit_s
            or bool(options.early_stop_patience and stale >= options.early_stop_patience)
        )

    def _share_done(self, of_epoch: float, started: float) -> float:
        """How much of the training is done, 0 to 1, by epochs or by time, whichever ends first."""
        by_epochs = (self._course.epoch + of_epoch) / self._options.max_epochs
        by_time = (self._course.seconds + time.monotonic() - started) / self._options.limit_s
        return min(1.0, max(by_epochs, by_time))

    def _save(self, learner: Learner, fingerprint: str) -> None:
        state = {"fingerprint": fingerprint, "learner": learner.state(), "course": asdict(self._course)}
        try:
            save_tensors(self._plan.state_path, state)
        except OSError as error:
            logger.warning("The state of the training cannot be saved, it goes on: %s", error)

    def _resume(self, learner: Learner, fingerprint: str) -> None:
        """Goes on where an equal training was cut off."""
        try:
            state = torch.load(self._plan.state_path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return
        except Exception as error:
            logger.warning("The state of the last training cannot be read, starting anew: %s", error)
            return
        if state.get("fingerprint") != fingerprint:
            return
        learner.restore(state["learner"])
        self._course = Course(**state["course"])
        if self._progress is not None:
            self._progress.note(f"going on after epoch {self._course.epoch}")

    def _facts(
        self, images: list[LabelledFrames], sides: dict[str, Side], left_out: list[dict[str, str]]
    ) -> list[dict[str, Any]]:
        """What the version's record says of each image."""
        used = [
            {
                "image": image.id,
                "side": sides[image.id],
                "frames": len(image),
                "labels": sorted(set(image.names.values())),
            }
            for image in images
        ]
        return used + [{**item, "side": "left out"} for item in left_out]

    def _tidy(self) -> None:
        """A training that has ended needs neither its state nor its frames any more."""
        self._plan.state_path.unlink(missing_ok=True)
        shutil.rmtree(self._plan.frames_folder, ignore_errors=True)


def _require(sampler: Sampler, targets: list[Target]) -> None:
    if not sampler.labelled or not targets:
        side = "learn from" if not sampler.labelled else "measure on"
        raise TrainingError(
            f"no labelled object is large enough to {side}: label larger objects, or choose a larger "
            "image_size"
        )
