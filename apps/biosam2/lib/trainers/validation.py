"""Validation on held-out images with equal objects and prompts, and the decision on fine-tuned weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.engine.predictor import Predictor
from lib.engine.propagation import propagate
from lib.metrics.segmentation import dice, jaccard, normalized_surface_dice
from lib.prompts.simulation import jittered_box, random_clicks
from lib.prompts.types import FramePrompts
from lib.trainers.frames import LabelledFrames
from lib.trainers.sampler import visible_objects
from lib.transforms.sampling import evenly_spaced, seeded_rng

Mask = NDArray[np.bool_]

# Kinds of prompts whose mean Dice is the score.
CLICK, CLICKS, BOX, TRACKED = "1 click", "3 clicks", "box", "tracked"
SCORED = (CLICK, CLICKS, BOX, TRACKED)
FAR = "far click"
NSD = "NSD, 1 click"
# Tolerance of the surface Dice in mm (pixels for pictures).
TOLERANCE_MM = 2.0
# Tracked objects, and frames tracked in each direction: enough to notice a damaged memory.
TRACKED_OBJECTS = 8
TRACKED_FRAMES = 3
# Least distance of a far click from the object, as a share of the frame's diagonal.
FAR_SHARE = 0.15


@dataclass(frozen=True)
class ValidationTarget:
    """One object on one held-out frame, with its prompts."""

    image: LabelledFrames
    frame: int
    value: int

    @property
    def name(self) -> str:
        """Class name."""
        return self.image.names[self.value]

    @property
    def place(self) -> str:
        """Image and frame as text."""
        return f"{self.image.id}, frame {self.frame}"

    @property
    def truth(self) -> Mask:
        """True mask (H, W)."""
        return self.image.mask(self.frame, self.value)

    @cached_property
    def prompts(self) -> dict[str, FramePrompts]:
        """Prompts by kind, equal for all networks."""
        truth, rng = self.truth, seeded_rng(f"{self.image.id} {self.frame} {self.value}")
        prompts = {
            CLICK: _clicks(random_clicks(truth, 1, rng)),
            CLICKS: _clicks(random_clicks(truth, 3, rng)),
            BOX: FramePrompts.of_box(jittered_box(truth, rng)),
        }
        far = _far_click(truth)
        return {**prompts, FAR: _clicks(np.array([far]))} if far is not None else prompts


@dataclass
class Measurement:
    """Result of a validation.

    Attributes:
        means: Mean Dice or NSD by kind of prompt, 0 to 1; kinds without any target are left out.
        masks: Masks of a single click by target, for the report.
        confidences: Predicted IoU times probability of presence of each mask from prompts on the object.
        ious: True IoU of the same masks.
    """

    means: dict[str, float]
    masks: dict[ValidationTarget, Mask] = field(default_factory=dict)
    confidences: list[float] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)

    @property
    def score(self) -> float:
        """Mean Dice over the kinds in ``SCORED``."""
        values = [self.means[kind] for kind in SCORED if kind in self.means]
        return float(np.mean(values)) if values else 0.0

    @property
    def summary(self) -> dict[str, float]:
        """Score and means for records and statistics."""
        return {"dice": self.score, **self.means}


def choose_targets(images: Sequence[LabelledFrames], image_size: int, most: int) -> list[ValidationTarget]:
    """Chooses objects, evenly spaced over images, classes and frames; deterministic."""
    piles: list[list[ValidationTarget]] = []
    for image in images:
        by_value: dict[int, list[ValidationTarget]] = defaultdict(list)
        for frame in range(len(image)):
            for value in visible_objects(image, frame, image_size):
                by_value[value].append(ValidationTarget(image, frame, value))
        piles += by_value.values()
    share = max(1, most // max(1, len(piles)))
    chosen = _evenly([target for pile in piles for target in _evenly(pile, share)], most)
    return sorted(chosen, key=lambda target: (target.image.id, target.frame, target.value))


def measure(predictor: Predictor, targets: Sequence[ValidationTarget]) -> Iterator[Measurement | None]:
    """Validates a network.

    Yields:
        None after each target, for progress bars, and the measurement at the end.
    """
    result = Measurement({})
    scores: dict[str, list[float]] = defaultdict(list)
    for target in targets:
        _measure_target(predictor, target, scores, result)
        yield None
    for target in _evenly([target for target in targets if len(target.image) > 1], TRACKED_OBJECTS):
        tracked = _tracked(predictor, target)
        if tracked is not None:
            scores[TRACKED].append(tracked)
        yield None
    result.means = {kind: float(np.mean(values)) for kind, values in scores.items()}
    yield result


def _measure_target(
    predictor: Predictor, target: ValidationTarget, scores: dict[str, list[float]], result: Measurement
) -> None:
    """Segments a target with each of its prompts."""
    truth = target.truth
    for kind, prompts in target.prompts.items():
        found = predictor.segment(target.image, target.frame, prompts)
        scores[kind].append(dice(found.mask, truth))
        if kind != FAR:
            result.confidences.append(min(max(found.score * found.presence, 0.0), 1.0))
            result.ious.append(jaccard(found.mask, truth))
        if kind == CLICK:
            result.masks[target] = found.mask
            nsd = normalized_surface_dice(found.mask, truth, target.image.spacing, TOLERANCE_MM)
            scores[NSD].append(nsd)


def _tracked(predictor: Predictor, target: ValidationTarget) -> float | None:
    """Dice over the neighbouring frames, tracked from a box; None if the object is on none of them."""
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
    """(x, y) of the pixel farthest from the object; None if no pixel is far enough."""
    distance = ndimage.distance_transform_edt(~truth)
    y, x = np.unravel_index(int(np.argmax(distance)), truth.shape)
    if distance[y, x] < FAR_SHARE * math.hypot(*truth.shape):
        return None
    return int(x), int(y)


def _evenly(targets: Sequence[ValidationTarget], most: int) -> list[ValidationTarget]:
    return [targets[place] for place in evenly_spaced(len(targets), most)]


# Tolerated loss in Dice of a single kind of prompt while the mean gains: within the noise of few objects.
MOST_LOSS = 0.03
# Dice tolerated for a click far from the object, absolute and relative to a click on the object: above them
# the network ignores its prompts. What the weights in service reach is tolerated as well.
MOST_FAR = 0.25
MOST_FAR_SHARE = 0.5


@dataclass(frozen=True)
class Acceptance:
    """Decision on fine-tuned weights."""

    accepted: bool
    reason: str


def judge(before: Measurement, after: Measurement, min_gain: float) -> Acceptance:
    """Compares fine-tuned weights with those in service, on the same objects and prompts."""
    summary = f"Dice {before.score:.3f} before, {after.score:.3f} after"
    if after.score - before.score < min_gain:
        return Acceptance(False, f"{summary}: the gain is below min_gain {min_gain:.3f}")
    for kind in SCORED:
        lost = before.means.get(kind, 0.0) - after.means.get(kind, 0.0)
        if kind in before.means and lost > MOST_LOSS:
            fell = f"{before.means[kind]:.3f} to {after.means.get(kind, 0.0):.3f}"
            return Acceptance(False, f"{summary}, but {kind} Dice fell from {fell}")
    far = after.means.get(FAR, 0.0)
    most = min(MOST_FAR, MOST_FAR_SHARE * after.means.get(CLICK, 1.0))
    if far > max(most, before.means.get(FAR, 0.0)):
        return Acceptance(
            False,
            f"{summary}, but the prompts lost their effect: a click far from the object still segments it "
            f"(Dice {far:.2f})",
        )
    return Acceptance(True, summary)
