"""How sure the model is of one image: a few slices of it, what it finds there, and how firmly."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lib.engine.frames import FrameSequence
from lib.engine.predictor import Predictor
from lib.prompts.types import FramePrompts
from lib.scoring.signals.aggregate import JITTER, PRESENCE, combine, mean_parts
from lib.scoring.signals.calibration import IDENTITY, Calibration
from lib.scoring.signals.confidence import doubt
from lib.scoring.signals.embedding import Vector, frame_vector, mean_vector
from lib.scoring.signals.object_signals import jitter_signal, native_mask, object_signals
from lib.scoring.signals.prompt_sources import PromptSource, Suggestion
from lib.scoring.store import ImageScore

# A class counts as found from this probability on that it is there.
_FOUND = 0.5


@dataclass(frozen=True)
class ScorePlan:
    """How closely an image is looked at.

    Attributes:
        slices: at most, at even distances.
        jitters: boxes that are drawn around each object; below 2 there is no such signal.
        seconds: after which no further slice is begun; the score depends on nothing else that varies.
    """

    slices: int = 6
    jitters: int = 4
    seconds: float = 60.0

    @property
    def name(self) -> str:
        """Another one for scores that cannot be compared."""
        return f"{self.slices} slices, {self.jitters} jitters"


def score_image(
    predictor: Predictor,
    frames: FrameSequence,
    sources: Sequence[PromptSource],
    plan: ScorePlan,
    calibration: Calibration = IDENTITY,
    give_way: Callable[[], None] = lambda: None,
) -> ImageScore:
    """Scores an image. The same image, weights and plan give the same score.

    Signals are means over the objects of a slice, then over the slices; the score is their weighted mean
    (``lib.scoring.signals.aggregate``). The slice to open is the one with the highest score among those that
    have an object.

    Args:
        predictor: of the weights in service.
        frames: the image's frames.
        sources: of prompts, at least one; each is asked where those before it found no object at all.
        plan: how closely to look.
        calibration: of the predicted IoU.
        give_way: called between steps; returns when nobody else needs the device.

    Returns:
        With the weights' name; ``settings`` and ``stamp`` are left to the caller.
    """
    started = time.monotonic()
    looking = _Looking(predictor, frames, plan, started + plan.seconds, give_way)
    looks: list[_Look] = []
    for source in sources:
        looks = looking.through(source)
        if any(look.has_object for look in looks):
            break
    parts = mean_parts(look.parts for look in looks)
    slices = {look.index: combine(look.parts, calibration) for look in looks if look.has_object}
    return ImageScore(
        score=combine(parts, calibration),
        parts=parts,
        slice_index=max(slices, key=lambda index: slices[index]) if slices else looks[0].index,
        embedding=mean_vector([look.vector for look in looks]),
        labels=tuple(sorted(frozenset[str]().union(*(look.labels for look in looks)))),
        weights=predictor.name,
        digest=frames.digest,
        seconds=time.monotonic() - started,
        calibration=calibration.name,
        slices=dict(sorted(slices.items())),
    )


def spread(count: int, most: int) -> list[int]:
    """At most so many of the slices 0 to ``count`` - 1, at even distances, from the middle outwards.

    Each stands in the middle of its equal share, so that the ends, where objects are cut, are not among them.
    """
    wanted = min(count, most)
    places = {int((step + 0.5) * count / wanted) for step in range(wanted)}
    return sorted(places, key=lambda place: (abs(2 * place + 1 - count), place))


@dataclass(frozen=True, eq=False)
class _Look:
    """What one slice says."""

    index: int
    parts: dict[str, float]
    has_object: bool
    labels: frozenset[str]
    vector: Vector


@dataclass(frozen=True)
class _Looking:
    """One image and how it is looked at."""

    predictor: Predictor
    frames: FrameSequence
    plan: ScorePlan
    deadline: float
    give_way: Callable[[], None]

    def through(self, source: PromptSource) -> list[_Look]:
        """At some of its slices, one at least, until the deadline."""
        looks: list[_Look] = []
        for index in spread(len(self.frames), self.plan.slices):
            if looks and time.monotonic() > self.deadline:
                break
            looks.append(self._at(index, source))
        return looks

    def _at(self, index: int, source: PromptSource) -> _Look:
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
        return _Look(index, mean_parts([*objects, *absent]), bool(objects), labels, vector)

    def _objects(self, index: int, found: Sequence[Suggestion]) -> list[dict[str, float]]:
        """The signals of each object on a slice."""
        self.give_way()
        prompts: list[FramePrompts] = [item.prompts for item in found if item.prompts is not None]
        outputs = self.predictor.outputs(self.frames, index, prompts)
        objects = []
        for number, item in enumerate(found):
            self.give_way()
            parts = object_signals(outputs, number, item.presence)
            mask = native_mask(outputs.logits[number], self.frames.height, self.frames.width)
            rng = _seeded(f"{self.frames.digest} {index} {number}")
            shaken = jitter_signal(self.predictor, self.frames, index, mask, self.plan.jitters, rng)
            objects.append(parts if shaken is None else {**parts, JITTER: shaken})
        return objects


def _is_found(item: Suggestion) -> bool:
    return bool(item.label) and (item.presence is None or item.presence >= _FOUND)


def _seeded(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
