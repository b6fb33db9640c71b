"""Measuring weights on held-out images: the same objects and prompts for all, as they are in service."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.engine.predictor import Predictor
from lib.engine.propagation import propagate
from lib.metrics.overlap import dice
from lib.metrics.surface import normalized_surface_dice
from lib.prompts.simulation import jittered_box, random_clicks
from lib.prompts.types import FramePrompts
from lib.trainers.frames import LabelledFrames
from lib.trainers.sampler import visible_objects

Mask = NDArray[np.bool_]

# Prompts that count for the decision; the mean of their Dice is the score.
CLICK, CLICKS, BOX, TRACKED = "1 click", "3 clicks", "box", "tracked"
SCORED = (CLICK, CLICKS, BOX, TRACKED)
FAR = "far click"
NSD = "NSD, 1 click"
# What a surface may be off by and still be right, in mm (in pixels for pictures).
TOLERANCE_MM = 2.0
# Objects that are followed, and frames to either side: enough to see whether the memory still works.
TRACKED_OBJECTS = 8
TRACKED_FRAMES = 3
# A click at least this share of the frame's diagonal from an object must not find it.
FAR_SHARE = 0.15


@dataclass(frozen=True)
class Target:
    """One object on one held-out frame, with the prompts that every network gets for it."""

    image: LabelledFrames
    frame: int
    value: int

    @property
    def name(self) -> str:
        """The object's class."""
        return self.image.names[self.value]

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.image.id}, frame {self.frame}"

    @property
    def truth(self) -> Mask:
        """(H, W)."""
        return self.image.mask(self.frame, self.value)

    @cached_property
    def prompts(self) -> dict[str, FramePrompts]:
        """By kind."""
        truth, rng = self.truth, _seeded(f"{self.image.id} {self.frame} {self.value}")
        prompts = {
            CLICK: _clicks(random_clicks(truth, 1, rng)),
            CLICKS: _clicks(random_clicks(truth, 3, rng)),
            BOX: FramePrompts.of_box(jittered_box(truth, rng)),
        }
        far = _far_click(truth)
        return {**prompts, FAR: _clicks(np.array([far]))} if far is not None else prompts


@dataclass
class Measurement:
    """What weights are worth.

    Attributes:
        means: by kind of prompt, mean Dice or NSD, 0 to 1; kinds that no target had are left out.
        masks: of the first kind of prompt, by target, for pictures.
    """

    means: dict[str, float]
    masks: dict[Target, Mask] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mean Dice over the prompts that count."""
        values = [self.means[kind] for kind in SCORED if kind in self.means]
        return float(np.mean(values)) if values else 0.0


def choose_targets(images: Sequence[LabelledFrames], image_size: int, most: int) -> list[Target]:
    """Objects to measure on: spread evenly over images, classes and frames, always the same ones.

    Args:
        images: held out.
        image_size: side of the network's input.
        most: how many.
    """
    piles: list[list[Target]] = []
    for image in images:
        by_value: dict[int, list[Target]] = {}
        for frame in range(len(image)):
            for value in visible_objects(image, frame, image_size):
                by_value.setdefault(value, []).append(Target(image, frame, value))
        piles += by_value.values()
    share = max(1, most // max(1, len(piles)))
    chosen = [target for pile in piles for target in _evenly(pile, share)]
    chosen = chosen if len(chosen) <= most else _evenly(chosen, most)
    return sorted(chosen, key=lambda target: (target.image.id, target.frame, target.value))


def measure(predictor: Predictor, targets: Sequence[Target]) -> Iterator[Measurement | None]:
    """Measures a network.

    Args:
        predictor: of the network.
        targets: of ``choose_targets``.

    Yields:
        None after each target, so that the caller can show progress, and the measurement at the end.
    """
    scores: dict[str, list[float]] = {}
    masks: dict[Target, Mask] = {}
    for target in targets:
        for kind, prompts in target.prompts.items():
            found = predictor.segment(target.image, target.frame, prompts).mask
            scores.setdefault(kind, []).append(dice(found, target.truth))
            if kind == CLICK:
                masks[target] = found
                nsd = normalized_surface_dice(found, target.truth, target.image.spacing, TOLERANCE_MM)
                scores.setdefault(NSD, []).append(nsd)
        yield None
    for target in _evenly([target for target in targets if len(target.image) > 1], TRACKED_OBJECTS):
        tracked = _tracked(predictor, target)
        if tracked is not None:
            scores.setdefault(TRACKED, []).append(tracked)
        yield None
    yield Measurement({kind: float(np.mean(values)) for kind, values in scores.items()}, masks)


def _tracked(predictor: Predictor, target: Target) -> float | None:
    """Dice over the frames beside the target's, from a box there; None where it is on none of them."""
    image, middle = target.image, target.frame
    bounds = max(0, middle - TRACKED_FRAMES), min(len(image), middle + TRACKED_FRAMES + 1)
    beside = [index for index in range(*bounds) if index != middle]
    truth = np.stack([image.mask(index, target.value) for index in beside])
    if not truth.any():
        return None
    found = np.zeros_like(truth)
    prompts = {middle: target.prompts[BOX]}
    for _, index, result in propagate(predictor, image, [prompts], bounds):
        if index != middle:
            found[beside.index(index)] = result.mask
    return dice(found, truth)


def _clicks(points: NDArray) -> FramePrompts:
    return FramePrompts(points=points, labels=np.ones(len(points), dtype=np.int32))


def _far_click(truth: Mask) -> tuple[int, int] | None:
    """(x, y) of the pixel that is farthest from the object; None where nothing is far from it."""
    distance = ndimage.distance_transform_edt(~truth)
    y, x = np.unravel_index(int(np.argmax(distance)), truth.shape)
    if distance[y, x] < FAR_SHARE * math.hypot(*truth.shape):
        return None
    return int(x), int(y)


def _evenly(pile: Sequence[Target], most: int) -> list[Target]:
    """At most so many, at even distances."""
    if len(pile) <= most:
        return list(pile)
    places = np.linspace(0, len(pile) - 1, most).round().astype(int)
    return [pile[place] for place in places.tolist()]


def _seeded(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
