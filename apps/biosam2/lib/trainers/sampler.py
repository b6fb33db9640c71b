"""Batches for training: frames or clips with augmentation, objects on them, and simulated prompts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lib.engine.network import network_image, network_mask
from lib.prompts.simulation import correction_click, jittered_box, random_clicks
from lib.prompts.types import FramePrompts
from lib.trainers import distributed
from lib.trainers.config import TrainOptions
from lib.trainers.frames import LabelledFrames

_LEVELS = 255.0
# Largest contrast factor and gamma; both are drawn between their inverse and this value.
CONTRAST = 1.25
GAMMA = 1.4

D = TypeVar("D", np.uint8, np.bool_)


@dataclass(frozen=True)
class Augmentation:
    """One augmentation; the default changes nothing.

    Attributes:
        flipped: Whether the frame is flipped along (y, x).
        contrast: Factor of the levels' distance from their mean.
        gamma: Exponent of the levels scaled to 0 to 1.
    """

    flipped: tuple[bool, bool] = (False, False)
    contrast: float = 1.0
    gamma: float = 1.0

    def frame(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Augments a frame (H, W, 3)."""
        seen = self.mask(levels)
        if self.contrast == 1.0 and self.gamma == 1.0:
            return seen
        table = np.arange(256) / _LEVELS
        middle = float(seen.mean()) / _LEVELS
        table = np.clip(middle + self.contrast * (table - middle), 0, 1) ** self.gamma
        return np.rint(table * _LEVELS).astype(np.uint8)[seen]

    def mask(self, array: NDArray[D]) -> NDArray[D]:
        """Flips a mask (H, W), or any array that begins with these axes."""
        along = [axis for axis, flipped in enumerate(self.flipped) if flipped]
        return np.ascontiguousarray(np.flip(array, along)) if along else array


def draw_augmentation(rng: np.random.Generator, few: bool) -> Augmentation:
    """Draws an augmentation; flips have probability 1/2.

    ``few`` draws from twelve only, four flips with three gammas, so that the embeddings of all can be cached.
    """
    flipped = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
    if few:
        return Augmentation(flipped, gamma=float(GAMMA ** rng.integers(-1, 2)))
    contrast, gamma = (float(limit ** rng.uniform(-1, 1)) for limit in (CONTRAST, GAMMA))
    return Augmentation(flipped, contrast, gamma)


Mask = NDArray[np.bool_]

# Pixels at the network's input size below which an object is labelling noise: nobody clicks on it.
SMALLEST = 12


@dataclass(frozen=True)
class PromptKind:
    """A kind of simulated prompt, with its probability ``share``.

    Positive clicks are all drawn at once from the mask (BioSAM-2, equation 1); a box is jittered as by hand.
    """

    name: str
    clicks: int
    box: bool
    share: float


# BioSAM-2 evaluates 1, 3 and 5 clicks and boxes. A single click is the most common prompt, and the weakest.
KINDS = (
    PromptKind("1 click", 1, False, 0.4),
    PromptKind("3 clicks", 3, False, 0.15),
    PromptKind("5 clicks", 5, False, 0.1),
    PromptKind("box", 0, True, 0.25),
    PromptKind("box and click", 1, True, 0.1),
)


def draw_kind(rng: np.random.Generator) -> PromptKind:
    """Draws a kind of prompt with the probabilities of ``KINDS``."""
    return KINDS[int(rng.choice(len(KINDS), p=[kind.share for kind in KINDS]))]


def draw_prompts(kind: PromptKind, mask: Mask, rng: np.random.Generator) -> FramePrompts:
    """Draws prompts for the object of a mask (H, W); anywhere on the frame for an empty mask."""
    if not mask.any():
        mask = _random_rectangle(mask.shape, rng)
    points = random_clicks(mask, kind.clicks, rng) if kind.clicks else np.zeros((0, 2), np.float32)
    return FramePrompts(
        points=points,
        labels=np.ones(len(points), dtype=np.int32),
        box=jittered_box(mask, rng) if kind.box else None,
    )


def correct(prompts: FramePrompts, truth: Mask, found: Mask, rng: np.random.Generator) -> FramePrompts:
    """Adds one click in the middle of the largest error, or at a random place without any error.

    All former prompts stay, as viewers send them again with each click.
    """
    click = correction_click(truth, found, rng)
    if click is None:
        (x, y), positive = random_clicks(truth, 1, rng)[0] if truth.any() else (0.0, 0.0), bool(truth.any())
    else:
        x, y, positive = click
    return FramePrompts(
        points=np.concatenate([prompts.points, [[x, y]]]),
        labels=np.concatenate([prompts.labels, [int(positive)]]),
        box=prompts.box,
    )


def _random_rectangle(shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """A rectangle with sides of a tenth to a third of the frame's, anywhere on the frame."""
    height, width = shape
    mask = np.zeros(shape, dtype=bool)
    sides = [max(1, int(side * rng.uniform(0.1, 0.33))) for side in (height, width)]
    top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(shape, sides, strict=True))
    mask[top : top + sides[0], left : left + sides[1]] = True
    return mask


@dataclass(frozen=True, eq=False)
class Sample:
    """One object on the frames of a batch's clip.

    Attributes:
        clip: Index of the clip in the batch.
        masks: True mask (H, W) on each frame, native size.
        prompts: Prompts on the first frame.
    """

    clip: int
    masks: tuple[Mask, ...]
    prompts: FramePrompts
    kind: PromptKind


@dataclass(frozen=True, eq=False)
class TrainingClip:
    """Augmented frames of one image; a single frame is a clip of length one."""

    image: LabelledFrames
    indices: tuple[int, ...]
    augmentation: Augmentation

    def frame(self, place: int) -> NDArray[np.uint8]:
        """Augmented frame at a place of the clip: uint8 (H, W, 3)."""
        return self.augmentation.frame(self.image[self.indices[place]])

    def mask(self, place: int, value: int) -> Mask:
        """Augmented mask (H, W) of a label value."""
        return self.augmentation.mask(self.image.mask(self.indices[place], value))


@dataclass(frozen=True, eq=False)
class Batch:
    """Input of one step: clips of equal length, objects on them, and the side of the input in pixels."""

    clips: tuple[TrainingClip, ...]
    samples: tuple[Sample, ...]
    image_size: int

    @cached_property
    def images(self) -> torch.Tensor:
        """All frames, clip by clip, at the network's size: (R * T, 3, S, S) in [0, 1]."""
        frames = [clip.frame(place) for clip in self.clips for place in range(self.length)]
        return _pinned(torch.cat([network_image(frame, self.image_size) for frame in frames]))

    @cached_property
    def masks(self) -> torch.Tensor:
        """True masks of all samples at the network's size: (N, T, S, S) bool."""
        return _pinned(
            torch.stack(
                [
                    torch.cat([network_mask(mask, self.image_size)[0] for mask in sample.masks])
                    for sample in self.samples
                ]
            )
        )

    @property
    def length(self) -> int:
        """Number of frames in each clip."""
        return len(self.clips[0].indices)

    def parts(self, count: int) -> list[Batch]:
        """The batch in at most ``count`` parts of whole clips; parts without a sample are left out."""
        parts = []
        for clips in np.array_split(np.arange(len(self.clips)), count):
            place = {int(clip): new for new, clip in enumerate(clips)}
            samples = tuple(
                replace(sample, clip=place[sample.clip]) for sample in self.samples if sample.clip in place
            )
            if samples:
                parts.append(Batch(tuple(self.clips[clip] for clip in clips), samples, self.image_size))
        return parts

    def groups(self) -> list[list[int]]:
        """Indices of the samples with equal kinds of prompts, which are decoded together."""
        by_kind: dict[str, list[int]] = {}
        for number, sample in enumerate(self.samples):
            by_kind.setdefault(sample.kind.name, []).append(number)
        return list(by_kind.values())


class Sampler:
    """Draws batches. A batch depends on seed and number only, so that a training can be resumed."""

    def __init__(self, images: Sequence[LabelledFrames], image_size: int, options: TrainOptions):
        self._images = images
        self._size = image_size
        self._options = options

    @cached_property
    def labelled(self) -> list[tuple[int, int]]:
        """(image, frame) indices of all frames with a visible object."""
        return [
            (number, index)
            for number, image in enumerate(self._images)
            for index in range(len(image))
            if visible_objects(image, index, self._size)
        ]

    @cached_property
    def labelled_in_volumes(self) -> list[tuple[int, int]]:
        """Entries of ``labelled`` from images with several frames."""
        return [(number, index) for number, index in self.labelled if len(self._images[number]) > 1]

    def draw(self, number: int) -> Batch:
        """Batch ``number`` of a training: single frames, or clips with about as many frames in total."""
        options = self._options
        # One draw for all processes: all take clips in the same steps.
        step = number // distributed.world()
        drawn = np.random.default_rng([options.seed, 3, step]).random()
        share = 1.0 if options.preset == "video" else options.clip_share
        if not self.labelled_in_volumes or drawn >= share:
            return self.batch(number, options.batch_size)
        clips = options.batch_size if options.preset == "video" else options.batch_size // options.clip_frames
        return self.batch(number, max(1, clips), options.clip_frames)

    def batch(self, number: int, clips: int, length: int = 1) -> Batch:
        """Batch ``number`` with some clips; each epoch visits the labelled frames in another order.

        Clips of more than one frame come from images with several frames only.
        """
        rng = np.random.default_rng([self._options.seed, number])
        labelled = self.labelled if length == 1 else self.labelled_in_volumes
        chosen: list[TrainingClip] = []
        samples: list[Sample] = []
        kinds = (draw_kind(rng), draw_kind(rng))
        for place, (image_number, index) in enumerate(self._places(labelled, number, clips)):
            image = self._images[image_number]
            indices = _clip_from(image, index, length, rng)
            clip = TrainingClip(image, indices, draw_augmentation(rng, self._options.is_encoder_frozen))
            chosen.append(clip)
            samples += self._samples(place, clip, kinds[place % 2], rng)
        return Batch(tuple(chosen), tuple(samples), self._size)

    def _places(self, labelled: Sequence[tuple[int, int]], number: int, clips: int) -> list[tuple[int, int]]:
        """Walks through a shuffled list of the frames, shuffled again after each pass."""
        count = len(labelled)
        places = []
        for position in range(number * clips, (number + 1) * clips):
            order = np.random.default_rng([self._options.seed, 1, position // count]).permutation(count)
            places.append(labelled[order[position % count]])
        return places

    def _samples(
        self, place: int, clip: TrainingClip, kind: PromptKind, rng: np.random.Generator
    ) -> list[Sample]:
        image, first = clip.image, clip.indices[0]
        values = rng.permutation(visible_objects(image, first, self._size))
        values = values[: self._options.objects_per_frame].tolist()
        absent = sorted(set(image.names) - set(image.objects[first]))
        if len(clip.indices) == 1 and absent and rng.random() < self._options.empty_frames * len(values):
            values[-1] = int(rng.choice(absent))
        samples = []
        for value in values:
            masks = tuple(clip.mask(index, value) for index in range(len(clip.indices)))
            samples.append(Sample(place, masks, draw_prompts(kind, masks[0], rng), kind))
        return samples


class PrefetchedBatches:
    """Batches in order, the next one prepared in a background thread.

    A thread, since batches read memory-mapped files and release the interpreter: worker processes of a
    ``DataLoader`` would import torch for ten seconds each. With cached embeddings frames are not needed.
    """

    def __init__(self, sampler: Sampler, with_images: bool):
        self._sampler = sampler
        self._with_images = with_images
        self._worker = ThreadPoolExecutor(1, "batches")
        self._ahead: tuple[int, Future[Batch]] | None = None

    def next(self, number: int) -> Batch:
        """Batch ``number``; the next one of this process is prepared meanwhile."""
        if self._ahead is not None and self._ahead[0] == number:
            batch = self._ahead[1].result()
        else:
            batch = self._make(number)
        after = number + distributed.world()
        self._ahead = after, self._worker.submit(self._make, after)
        return batch

    def _make(self, number: int) -> Batch:
        batch = self._sampler.draw(number)
        # Computed here, in the background thread, and cached.
        _ = batch.masks
        if self._with_images:
            _ = batch.images
        return batch


def _clip_from(image: LabelledFrames, index: int, length: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A frame and the following ones in a random direction; the last frame is repeated at the end."""
    step = 1 if rng.random() < 0.5 else -1
    return tuple(int(np.clip(index + step * t, 0, len(image) - 1)) for t in range(length))


def visible_objects(image: LabelledFrames, index: int, image_size: int) -> list[int]:
    """Label values on a frame with at least ``SMALLEST`` pixels at the network's input size."""
    scale = image_size**2 / (image.height * image.width)
    least = SMALLEST / min(scale, 1.0)
    return [value for value, area in sorted(image.objects[index].items()) if area >= least]


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in pinned memory if there is a GPU, for asynchronous copies."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
