"""Preset ``auto_head``: trains prompt-free classes on frozen features, and compares them with one prompt."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from lib.engine.auto_head import AUTO_HEAD, HEAD_FILE, ONE_PROMPT, AutoHead, HeadSegmenter, save_head
from lib.engine.builder import load_network
from lib.engine.memory import BANK_SIZE
from lib.engine.model_versions import WEIGHTS_FILE, Versions
from lib.engine.network import EmbeddingCache, network_mask
from lib.engine.one_prompt import OnePrompt
from lib.engine.predictor import Predictor
from lib.engine.registry import Registry
from lib.engine.runtime import InteractivePriority, Runtime, resolve_device
from lib.errors import TrainingError
from lib.labels.labelled_slices import LEAST_PIXELS, LabelledSlice
from lib.metrics.segmentation import dice
from lib.reports.page import Page
from lib.settings import MemoryPolicy
from lib.trainers.config import TrainingPlan, TrainOptions
from lib.trainers.frames import LabelledFrames, image_records, open_images
from lib.trainers.progress import TrainingProgress
from lib.trainers.publishing import REPORT_FILE, copy_config, version_record
from lib.trainers.training_step import bce_loss, dice_loss
from lib.transforms.sampling import evenly_spaced

# Frames that are learned from; their features have to fit in the cache too.
MOST_FRAMES = 256
# The head begins with random weights: its learning rate is as many times that of fine-tuning.
RATE_FACTOR = 50.0
LEAST_STEPS = 8  # of an epoch
# Held-out images that both ways of segmenting are measured on.
MOST_MEASURED = 8
_DROPOUT = 0.1
_MIB = 1 << 20

Frame = tuple[LabelledFrames, int]
Scores = dict[str, dict[str, float]]


class HeadTraining:
    """Trains an ``AutoHead`` in one process; others, without a progress, do nothing.

    The weights in service stay as they are.
    """

    def __init__(self, plan: TrainingPlan, progress: TrainingProgress | None):
        self._plan = plan
        self._progress = progress

    def run(self) -> None:
        """Runs the training from the labels to the version.

        Raises:
            TrainingError: No label is on both sides of the split.
        """
        if self._progress is None:
            return
        progress, plan = self._progress, self._plan
        images, sides, left_out = open_images(plan, progress)
        learned = [image for image in images if sides[image.id] == "train"]
        held_out = [image for image in images if sides[image.id] == "val"]
        labels = sorted(_names(learned) & _names(held_out))
        if not labels:
            raise TrainingError(
                "No label is on a learned and on a held-out image: label more images with the same names"
            )
        predictor = self._predictor()
        budget, priority = plan.embedding_cache_mb * _MIB, InteractivePriority(plan.model_dir)
        learner = HeadLearner(predictor, learned, labels, plan.options, budget, priority.give_way)
        before = measure(one_prompts(predictor, learned, labels), held_out)
        progress.note(f"one-prompt segmentation has Dice {_mean(before):.3f}", before={"dice": _mean(before)})
        after = self._learn(learner, held_out, progress)
        learner.head.ways = {name: {ONE_PROMPT: before[name], AUTO_HEAD: after[name]} for name in labels}
        self._finish(learner.head, image_records(images, sides, left_out), progress)
        shutil.rmtree(plan.frames_folder, ignore_errors=True)

    def _learn(
        self, learner: HeadLearner, held_out: Sequence[LabelledFrames], progress: TrainingProgress
    ) -> dict[str, float]:
        """Trains until the epochs or the time are over, or early stopping; Dice of the best epoch."""
        options = self._plan.options
        deadline = time.monotonic() + options.limit_s
        best, best_scores, best_epoch = learner.state(), dict.fromkeys(learner.head.labels, -1.0), 0
        for epoch in range(1, options.max_epochs + 1):
            started = time.monotonic()
            loss = learner.epoch()
            scores = measure(learner.segmenters(), held_out)
            if _mean(scores) > _mean(best_scores):
                best, best_scores, best_epoch = learner.state(), scores, epoch
            progress.epoch(epoch, {"total": loss}, scores, _mean(scores), time.monotonic() - started)
            is_stale = options.early_stop_patience and epoch - best_epoch >= options.early_stop_patience
            if time.monotonic() > deadline or is_stale:
                break
        learner.head.load_state_dict(best)
        return best_scores

    def _predictor(self) -> Predictor:
        plan = self._plan
        runtime = Runtime(resolve_device(plan.device), plan.precision)
        network = load_network(plan.service, Registry(plan.model_dir), runtime.type)
        cache = EmbeddingCache(plan.embedding_cache_mb * _MIB)
        return Predictor(network, runtime, cache, plan.service.name, "auto_head")

    def _finish(self, head: AutoHead, data: list[dict[str, Any]], progress: TrainingProgress) -> None:
        """Publishes a version with the head if it is better for a label; the weights are copies."""
        plan, versions, ways = self._plan, Versions(self._plan.model_dir), head.ways
        chosen = {name: max(dices.values()) for name, dices in ways.items()}
        reason = f"the head is better than one prompt for {len(head.better)} of {len(ways)} labels"
        facts = {"after": {"dice": _mean(chosen)}, "best_metric": _mean(chosen), "reason": reason}
        _write_report(plan, ways, reason)
        if not head.better:
            progress.end("kept", f"Rejected: {reason}", published=False, version=plan.service.name, **facts)
            return
        with versions.new_folder() as folder, versions.unchanged():
            if (current := versions.current()) != plan.published:
                raise TrainingError(
                    f"{current or plan.service.base} came into service meanwhile: train again"
                )
            copy_config(plan.service, folder)
            shutil.copy(plan.service.path, folder / WEIGHTS_FILE)
            shutil.copy(plan.folder / REPORT_FILE, folder / REPORT_FILE)
            save_head(folder / HEAD_FILE, head)
            version = versions.add(folder, self._record(ways, reason, data, versions))
            versions.switch(version.name)
        progress.end(
            "published",
            f"Published: {version.name} is in service; {reason}",
            published=True,
            version=version.name,
            **facts,
        )

    def _record(
        self, ways: Scores, reason: str, data: list[dict[str, Any]], versions: Versions
    ) -> dict[str, Any]:
        service = self._plan.service
        before, after = (
            {"dice": _mean({name: dices[way] for name, dices in ways.items()})}
            for way in (ONE_PROMPT, AUTO_HEAD)
        )
        return version_record(
            service,
            before=service.version,
            meta_settings=service.meta_settings,
            single_mask=service.single_mask,
            metrics={"verdict": reason, "before": before, "after": after, "ways": ways},
            calibration=versions.read(service.version).calibration if service.version else {},
            options=self._plan.options.model_dump(),
            data=data,
        )


class HeadLearner:
    """Optimises a head on frames of some images, whose features are computed once.

    ``budget`` is the memory for features in bytes; ``give_way``, called between steps, returns once no
    interactive request runs.
    """

    def __init__(
        self,
        predictor: Predictor,
        images: Sequence[LabelledFrames],
        labels: Sequence[str],
        options: TrainOptions,
        budget: int,
        give_way: Callable[[], None] = lambda: None,
    ):
        torch.manual_seed(options.seed)
        self._predictor = predictor
        self._give_way = give_way
        self._batch = options.batch_size
        self._rng = np.random.default_rng(options.seed)
        holding = [image for image in images if set(labels) & set(image.names.values())]
        frames = [(image, index) for image in holding for index in range(len(image))]
        first = predictor.features(*frames[0])
        room = max(self._batch, budget // (2 * first.nbytes))
        self._frames = [frames[place] for place in evenly_spaced(len(frames), min(MOST_FRAMES, room))]
        self._steps = options.steps_per_epoch or max(LEAST_STEPS, len(self._frames) // self._batch)
        self.head = AutoHead([level.shape[1] for level in first.maps], labels).to(predictor.runtime.device)
        rate = options.learning_rate * RATE_FACTOR
        self._optimizer = torch.optim.AdamW(self.head.parameters(), rate, weight_decay=0.05)
        total = self._steps * options.max_epochs
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, rate, total_steps=total)

    def epoch(self) -> float:
        """Makes the steps of an epoch; the mean loss."""
        self.head.train()
        return float(np.mean([self._step() for _ in tqdm(range(self._steps), desc="Epoch", disable=None)]))

    def segmenters(self) -> dict[str, HeadSegmenter]:
        """The head as it is now, by label."""
        self.head.eval()
        return {name: HeadSegmenter(self._predictor, self.head, name) for name in self.head.labels}

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the head's parameters."""
        return {name: value.detach().clone() for name, value in self.head.state_dict().items()}

    def _step(self) -> float:
        self._give_way()
        chosen = [self._frames[n] for n in self._rng.integers(len(self._frames), size=self._batch)]
        features = [self._predictor.features(image, index).maps for image, index in chosen]
        # The features were made in inference mode; copies of them can be trained on.
        levels = (torch.cat(level).float().clone() for level in zip(*features, strict=True))
        maps = [F.dropout2d(level, _DROPOUT) for level in levels]
        logits = self.head(maps)
        truth, known = self._truth(chosen, logits.shape[-1])
        losses = dice_loss(torch.sigmoid(logits[known]), truth[known]) + bce_loss(logits[known], truth[known])
        self._optimizer.zero_grad()
        losses.mean().backward()
        self._optimizer.step()
        self._schedule.step()
        return float(losses.detach().mean())

    def _truth(self, chosen: Sequence[Frame], side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks (B, labels, side, side), and (B, labels) whether the image has the label at all.

        On an image without a label nobody may have looked for it.
        """
        device = self._predictor.runtime.device
        names = self.head.labels
        masks = [[_mask(image, index, name) for name in names] for image, index in chosen]
        truth = torch.stack([torch.cat([network_mask(m, side) for m in row], 1)[0] for row in masks])
        known = torch.tensor([[name in image.names.values() for name in names] for image, _ in chosen])
        return truth.float().to(device), known.to(device)


def measure(
    segmenters: dict[str, HeadSegmenter] | dict[str, OnePrompt], images: Sequence[LabelledFrames]
) -> dict[str, float]:
    """Mean Dice by label over at most ``MOST_MEASURED`` images that have it, segmented as in service."""
    scores = {}
    for name, segmenter in segmenters.items():
        holding = [image for image in images if name in image.names.values()]
        chosen = [holding[place] for place in evenly_spaced(len(holding), MOST_MEASURED)]
        scores[name] = float(np.mean([_dice(segmenter, image, name) for image in chosen]))
    return scores


def _dice(segmenter: HeadSegmenter | OnePrompt, image: LabelledFrames, name: str) -> float:
    truth = np.stack([_mask(image, index, name) for index in range(len(image))])
    found = np.zeros_like(truth)
    for index, result in segmenter.segment(image):
        found[index] = result.mask
    return dice(found, truth)


def one_prompts(
    predictor: Predictor,
    images: Sequence[LabelledFrames],
    labels: Sequence[str],
    policy: MemoryPolicy = "confidence",
) -> dict[str, OnePrompt]:
    """One-prompt segmenters by label, with the slices of labelled images as templates."""
    return {name: OnePrompt(predictor, list(_templates(images, name)), name, policy) for name in labels}


def _templates(images: Sequence[LabelledFrames], name: str) -> Iterator[LabelledSlice]:
    """Slices that hold a label, evenly spaced: at most ``BANK_SIZE``."""
    holding = [
        (image, index)
        for image in images
        for index, areas in enumerate(image.objects)
        if sum(area for value, area in areas.items() if image.names.get(value) == name) >= LEAST_PIXELS
    ]
    for place in evenly_spaced(len(holding), BANK_SIZE):
        image, index = holding[place]
        yield LabelledSlice(image.digest, index, image[index], {name: _mask(image, index, name)})


def _mask(image: LabelledFrames, index: int, name: str) -> NDArray[np.bool_]:
    """Mask (H, W) of all objects of a class on a frame."""
    values = [value for value in image.objects[index] if image.names.get(value) == name]
    masks = [image.mask(index, value) for value in values]
    return np.any(masks, axis=0) if masks else np.zeros((image.height, image.width), bool)


def _names(images: Sequence[LabelledFrames]) -> set[str]:
    """Labels with an object that is large enough to learn from."""
    return {
        image.names[value]
        for image in images
        for areas in image.objects
        for value, area in areas.items()
        if area >= LEAST_PIXELS
    }


def _mean(scores: dict[str, float]) -> float:
    return float(np.mean(list(scores.values())))


def _write_report(plan: TrainingPlan, ways: Scores, reason: str) -> None:
    page = Page(f"Prompt-free classes on {plan.service.name}")
    page.paragraph(f"On held-out images {reason}; biosam2_auto takes the better one for each label.")
    page.heading("Dice on held-out images")
    rows = [[name, *(f"{dices[way]:.3f}" for way in (ONE_PROMPT, AUTO_HEAD))] for name, dices in ways.items()]
    page.table(["Label", "One prompt", "Head"], rows)
    page.write(plan.folder / REPORT_FILE)
