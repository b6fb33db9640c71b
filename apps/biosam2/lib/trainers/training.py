"""One fine-tuning job; every distributed process executes it."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lib.engine.builder import load_network
from lib.engine.checkpoints import Weights
from lib.engine.model_versions import save_tensors
from lib.engine.network import EmbeddingCache, Network
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import InteractivePriority, Runtime, resolve_device
from lib.errors import BioSam2Error, TrainingError
from lib.trainers import distributed
from lib.trainers.auto_head import HeadTraining
from lib.trainers.config import TrainingPlan
from lib.trainers.frames import image_records, open_images
from lib.trainers.optimizer import NetworkOptimizer, copy_parameters, interpolate_weights
from lib.trainers.progress import TrainingProgress
from lib.trainers.publishing import TrainingResult, TrainingState, publish
from lib.trainers.sampler import Sampler
from lib.trainers.validation import Measurement, ValidationTarget, choose_targets, judge, measure

logger = logging.getLogger(__name__)

# Maximum number of steps in an epoch, so that large datasets report progress.
LONGEST_EPOCH = 200
_MIB = 1 << 20


def train(plan: TrainingPlan) -> None:
    """Trains, validates and publishes.

    Raises:
        TrainingError: The training failed; the weights in service are unchanged.
    """
    progress = None
    if distributed.rank() == 0:
        progress = TrainingProgress(plan.folder, plan.options.max_epochs, plan.started)
    try:
        with plain_errors(plan.frames_folder):
            if plan.options.preset == "auto_head":
                HeadTraining(plan, progress).run()
            else:
                Training(plan, progress).run()
    except Exception as error:
        if progress is not None:
            reason = str(error) if isinstance(error, TrainingError) else f"{type(error).__name__}: {error}"
            progress.end("failed", reason, published=False, reason=reason)
        raise


@contextlib.contextmanager
def plain_errors(scratch: Path) -> Iterator[None]:
    """Converts expected errors to ``TrainingError`` with a reason that users can act on.

    Args:
        scratch: Folder that can be made again; deleted if the disk is full.
    """
    try:
        yield
    except TrainingError:
        raise
    except BioSam2Error as error:
        raise TrainingError(str(error)) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            shutil.rmtree(scratch, ignore_errors=True)
            raise TrainingError(
                "The disk is full: nothing was published and nothing is lost; free space and train again"
            ) from error
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingError(
            "Out of memory: choose a smaller image_size or batch_size, preset decoder, or another device"
        ) from error


class Training:
    """One training in one process."""

    def __init__(self, plan: TrainingPlan, progress: TrainingProgress | None):
        self._plan = plan
        self._options = plan.options
        self._progress = progress
        self._runtime = Runtime(distributed.own_device(resolve_device(plan.device)), plan.precision)
        self._registry = Registry(plan.model_dir)
        self._priority = InteractivePriority(plan.model_dir)
        self._state = TrainingState()
        self._before = Measurement({})
        self._targets: list[ValidationTarget] = []
        # Embeddings of the validation frames, kept over the epochs while the encoder is frozen.
        self._embeddings = self._new_cache() if plan.options.is_encoder_frozen else None

    def run(self) -> None:
        """Runs the training from the labels to the decision."""
        images, sides, left_out = distributed.from_first(
            open_images(self._plan, self._progress) if self._progress else None
        )
        network = self._load(replace(self._plan.weights, single_mask=True, meta_settings=False))
        size = int(network.image_size)
        sampler = Sampler([image for image in images if sides[image.id] == "train"], size, self._options)
        held_out = [image for image in images if sides[image.id] == "val"]
        self._targets = choose_targets(held_out, size, self._options.val_objects)
        if not sampler.labelled or not self._targets:
            side = "learn from" if not sampler.labelled else "measure on"
            raise TrainingError(
                f"No labelled object is large enough to {side}: label larger objects, or choose a larger "
                "image_size"
            )
        self._before = self._measure_before()
        optimizer = NetworkOptimizer(network, self._options, sampler, self._runtime, self._new_cache())
        start = copy_parameters(network)
        fingerprint = self._plan.fingerprint([image.digest for image in images])
        self._resume(optimizer, fingerprint)
        self._learn(optimizer, sampler, fingerprint)
        if self._progress is not None:
            self._finish(network, start, image_records(images, sides, left_out), self._progress)

    def _finish(
        self,
        network: Network,
        start: dict[str, torch.Tensor],
        data: list[dict[str, Any]],
        progress: TrainingProgress,
    ) -> None:
        """Interpolates, validates and publishes the best weights; the files of the training are removed."""
        state = self._state
        state.learned_share = interpolate_weights(network, start, state.best or start, self._rank)
        publish(
            TrainingResult(self._plan, state, data, self._before),
            network,
            lambda weights: self._measure(self._load(weights), "the fine-tuned weights"),
            progress,
        )
        self._plan.state_path.unlink(missing_ok=True)
        shutil.rmtree(self._plan.frames_folder, ignore_errors=True)

    def _new_cache(self) -> EmbeddingCache:
        return EmbeddingCache(self._plan.embedding_cache_mb * _MIB)

    def _load(self, weights: Weights) -> Network:
        if self._options.image_size:
            weights = replace(weights, image_size=self._options.image_size)
        return load_network(weights, self._registry, self._runtime.type)

    def _measure_before(self) -> Measurement:
        if self._progress is None:
            return Measurement({})
        network = load_network(self._plan.service, self._registry, self._runtime.type)
        before = self._measure(network, "the weights in service")
        self._progress.note(
            f"{self._plan.service.name} is in service, with Dice {before.score:.3f} on "
            f"{len(self._targets)} held-out objects",
            before=before.summary,
        )
        return before

    def _measure(self, network: Network, what: str, kept: EmbeddingCache | None = None) -> Measurement:
        """Validates a network; kept embeddings must come from the same frozen encoder."""
        version = what if kept is None else "frozen encoder"
        embeddings = kept if kept is not None else self._new_cache()
        predictor = Predictor(network, self._runtime, embeddings, "validation", version)
        *_, last = tqdm(measure(predictor, self._targets), desc=f"Measuring {what}", disable=None)
        return last or Measurement({})

    def _learn(self, optimizer: NetworkOptimizer, sampler: Sampler, fingerprint: str) -> None:
        """Trains until the epochs or the time are over, or early stopping."""
        options = self._options
        all_frames = -(-len(sampler.labelled) // (options.batch_size * distributed.world()))
        steps = options.steps_per_epoch or min(LONGEST_EPOCH, all_frames)
        while not distributed.from_first(self._is_over()):
            started = time.monotonic()
            losses = self._epoch(optimizer, steps, started)
            self._state.epoch += 1
            if self._progress is not None:
                self._after_epoch(optimizer, losses, started, self._progress)
                self._save(optimizer, fingerprint)

    def _epoch(self, optimizer: NetworkOptimizer, steps: int, started: float) -> dict[str, float]:
        """Makes the steps of an epoch; mean losses by name."""
        sums: dict[str, float] = defaultdict(float)
        for done in range(1, steps + 1):
            self._priority.give_way()
            # One clock for all processes, so that all use the same learning rate.
            share = distributed.from_first(self._completed(done / steps, started))
            for name, value in optimizer.advance(share).items():
                sums[name] += value
            if share >= 1.0:
                break
        return {name: value / done for name, value in sums.items()}

    def _after_epoch(
        self,
        optimizer: NetworkOptimizer,
        losses: dict[str, float],
        started: float,
        progress: TrainingProgress,
    ) -> None:
        state = self._state
        measurement = self._measure(optimizer.averaged_network, f"epoch {state.epoch}", self._embeddings)
        rank = acceptable, score = self._rank_of(measurement)
        if rank > (state.best_is_acceptable, state.best_score):
            state.best = copy_parameters(optimizer.averaged_network)
            state.best_is_acceptable, state.best_score, state.best_epoch = acceptable, score, state.epoch
        seconds = time.monotonic() - started
        state.seconds += seconds
        state.history.append(
            {"epoch": state.epoch, "loss": losses, "means": measurement.means, "score": score}
        )
        progress.epoch(state.epoch, losses, measurement.means, score, seconds)

    def _rank(self, network: Network) -> tuple[bool, float]:
        network.eval()
        return self._rank_of(self._measure(network, "interpolated weights", self._embeddings))

    def _rank_of(self, measurement: Measurement) -> tuple[bool, float]:
        """Whether weights would be published, and their score: acceptable weights rank above all others."""
        return judge(self._before, measurement, self._options.min_gain).accepted, measurement.score

    def _is_over(self) -> bool:
        options, state = self._options, self._state
        stale = state.epoch - state.best_epoch
        return (
            state.epoch >= options.max_epochs
            or state.seconds >= options.limit_s
            or bool(options.early_stop_patience and stale >= options.early_stop_patience)
        )

    def _completed(self, of_epoch: float, started: float) -> float:
        """Completed share of the training, 0 to 1, by epochs or by time, whichever is larger."""
        by_epochs = (self._state.epoch + of_epoch) / self._options.max_epochs
        by_time = (self._state.seconds + time.monotonic() - started) / self._options.limit_s
        return min(1.0, max(by_epochs, by_time))

    def _save(self, optimizer: NetworkOptimizer, fingerprint: str) -> None:
        saved = {"fingerprint": fingerprint, "optimizer": optimizer.state(), "training": asdict(self._state)}
        try:
            save_tensors(self._plan.state_path, saved)
        except OSError as error:
            logger.warning("Training state not saved, training continues: %s", error)

    def _resume(self, optimizer: NetworkOptimizer, fingerprint: str) -> None:
        """Continues an interrupted training with an equal fingerprint."""
        try:
            saved = torch.load(self._plan.state_path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return
        except Exception as error:
            logger.warning("State of the last training ignored, since it cannot be read: %s", error)
            return
        if saved.get("fingerprint") != fingerprint or "training" not in saved:
            return
        optimizer.restore(saved["optimizer"])
        self._state = TrainingState(**saved["training"])
        if self._progress is not None:
            self._progress.note(f"resuming after epoch {self._state.epoch}")
