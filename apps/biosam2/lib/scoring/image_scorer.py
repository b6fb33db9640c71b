"""Uncertainty score of one image, from a few of its slices."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib.engine.frames import FrameSequence
from lib.engine.predictor import Predictor
from lib.metrics.calibration import IDENTITY, Calibration
from lib.prompts.types import FramePrompts
from lib.scoring.prompt_sources import PromptSource, Suggestion
from lib.scoring.signals import (
    JITTER,
    PRESENCE,
    Vector,
    combine,
    doubt,
    frame_vector,
    jitter_signal,
    mean_parts,
    mean_vector,
    native_mask,
    object_signals,
)
from lib.scoring.store import ImageScore
from lib.transforms.sampling import evenly_spaced, seeded_rng

# Probability of presence from which on a class counts as found.
_FOUND = 0.5


@dataclass(frozen=True)
class ScorePlan:
    """Effort spent on an image.

    Attributes:
        slices: Maximum number of evenly spaced slices.
        jitters: Jittered boxes around each object; below 2 the signal is left out.
        seconds: Time after which no further slice is begun. Nothing else makes scores vary.
    """

    slices: int = 6
    jitters: int = 4
    seconds: float = 60.0

    @property
    def name(self) -> str:
        """Differs for scores that cannot be compared."""
        return f"{self.slices} slices, {self.jitters} jitters"


def score_image(
    predictor: Predictor,
    frames: FrameSequence,
    sources: Sequence[PromptSource],
    plan: ScorePlan,
    calibration: Calibration = IDENTITY,
    give_way: Callable[[], None] = lambda: None,
) -> ImageScore:
    """Scores an image. Equal images, weights and plans give equal scores.

    Signals are averaged over the objects of a slice, then over the slices; the score is their weighted mean
    (``lib.scoring.signals``). The suggested slice is the one with the highest score among those
    with an object.

    Args:
        predictor: Predictor of the weights in service.
        frames: Frames of the image.
        sources: Prompt sources, at least one; each is used only if the earlier ones found no object.
        plan: Effort spent on the image.
        calibration: Calibration of the predicted IoU.
        give_way: Called between steps; returns once no interactive request runs.

    Returns:
        The score without ``settings`` and ``stamp``, which the caller adds.
    """
    started = time.monotonic()
    scorer = _ImageScorer(predictor, frames, plan, started + plan.seconds, give_way)
    visited: list[_SliceSignals] = []
    for source in sources:
        visited = scorer.visit(source)
        if any(item.has_object for item in visited):
            break
    parts = mean_parts(item.parts for item in visited)
    slices = {item.index: combine(item.parts, calibration) for item in visited if item.has_object}
    return ImageScore(
        score=combine(parts, calibration),
        parts=parts,
        slice_index=max(slices, key=lambda index: slices[index]) if slices else visited[0].index,
        embedding=mean_vector([item.vector for item in visited]),
        labels=tuple(sorted(frozenset[str]().union(*(item.labels for item in visited)))),
        weights=predictor.name,
        digest=frames.digest,
        seconds=time.monotonic() - started,
        calibration=calibration.name,
        slices=dict(sorted(slices.items())),
    )


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` evenly spaced slices of ``count``, from the middle outwards."""
    return sorted(evenly_spaced(count, most), key=lambda place: (abs(2 * place + 1 - count), place))


@dataclass(frozen=True, eq=False)
class _SliceSignals:
    """Signals of one slice, averaged over its objects."""

    index: int
    parts: dict[str, float]
    has_object: bool
    labels: frozenset[str]
    vector: Vector


@dataclass(frozen=True)
class _ImageScorer:
    """Computes the signals of one image's slices."""

    predictor: Predictor
    frames: FrameSequence
    plan: ScorePlan
    deadline: float
    give_way: Callable[[], None]

    def visit(self, source: PromptSource) -> list[_SliceSignals]:
        """Signals of some slices, at least one, until the deadline."""
        visited: list[_SliceSignals] = []
        for index in spread(len(self.frames), self.plan.slices):
            if visited and time.monotonic() > self.deadline:
                break
            visited.append(self._slice(index, source))
        return visited

    def _slice(self, index: int, source: PromptSource) -> _SliceSignals:
        self.give_way()
        vector = frame_vector(self.predictor.features(self.frames, index))
        self.give_way()
        suggestions = source.suggest(self.predictor, self.frames, index)
        found = [item for item in suggestions if item.prompts is not None]
        absent = [
            {PRESENCE: doubt(item.presence)}
            for item in suggestions
            if item.prompts is None and item.presence is not None
        ]
        objects = self._objects(index, found) if found else []
        labels = frozenset(item.label for item in found if _is_found(item))
        return _SliceSignals(index, mean_parts([*objects, *absent]), bool(objects), labels, vector)

    def _objects(self, index: int, found: Sequence[Suggestion]) -> list[dict[str, float]]:
        """Signals of each object on a slice."""
        self.give_way()
        prompts: list[FramePrompts] = [item.prompts for item in found if item.prompts is not None]
        outputs = self.predictor.outputs(self.frames, index, prompts)
        objects = []
        for number, item in enumerate(found):
            self.give_way()
            parts = object_signals(outputs, number, item.presence)
            mask = native_mask(outputs.logits[number], self.frames.height, self.frames.width)
            rng = seeded_rng(f"{self.frames.digest} {index} {number}")
            jitter = jitter_signal(self.predictor, self.frames, index, mask, self.plan.jitters, rng)
            objects.append(parts if jitter is None else {**parts, JITTER: jitter})
        return objects


def _is_found(item: Suggestion) -> bool:
    return bool(item.label) and (item.presence is None or item.presence >= _FOUND)
