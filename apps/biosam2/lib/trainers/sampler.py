"""What one step learns from: frames, and on each some objects with prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lib.engine.preprocessing import network_image, network_mask
from lib.prompts.types import FramePrompts
from lib.trainers.augmentation import View, draw_view
from lib.trainers.frames import LabelledFrames
from lib.trainers.prompt_sampling import Kind, draw_kind, draw_prompts

Mask = NDArray[np.bool_]

# Pixels of the network's input below which a piece of an object is labelling noise: nobody clicks on it.
SMALLEST = 12


@dataclass(frozen=True, eq=False)
class Sample:
    """One object on one frame, or on the frames of a clip.

    Attributes:
        row: which of the step's frames, or clips, it is on.
        masks: the truth on each of its frames, native (H, W); one for a single frame.
        prompts: on the first of them.
        kind: of the prompts.
    """

    row: int
    masks: tuple[Mask, ...]
    prompts: FramePrompts
    kind: Kind


@dataclass(frozen=True, eq=False)
class Row:
    """One frame of a step, or one clip.

    Attributes:
        image: whose frames they are.
        indices: of the frames; one for a single frame.
        view: in which they are seen.
    """

    image: LabelledFrames
    indices: tuple[int, ...]
    view: View

    def frame(self, place: int) -> NDArray[np.uint8]:
        """The frame at a place of the row: uint8 (H, W, 3)."""
        return self.view.frame(self.image[self.indices[place]])

    def mask(self, place: int, value: int) -> Mask:
        """Where an object is on it: (H, W)."""
        return self.view.mask(self.image.mask(self.indices[place], value))


@dataclass(frozen=True, eq=False)
class Batch:
    """A step's frames and what is looked for on them.

    Attributes:
        rows: frames or clips, all of as many frames.
        samples: objects on them.
        image_size: side of the network's input.
    """

    rows: tuple[Row, ...]
    samples: tuple[Sample, ...]
    image_size: int

    @cached_property
    def images(self) -> torch.Tensor:
        """Every frame of every row, row by row, at the network's size: (R * T, 3, S, S) in [0, 1]."""
        frames = [row.frame(place) for row in self.rows for place in range(len(row.indices))]
        return _pinned(torch.cat([network_image(frame, self.image_size) for frame in frames]))

    @cached_property
    def masks(self) -> torch.Tensor:
        """The truth of every sample on each of its frames at the network's size: (N, T, S, S) bool."""
        return _pinned(
            torch.stack(
                [
                    torch.cat([network_mask(mask, self.image_size)[0] for mask in sample.masks])
                    for sample in self.samples
                ]
            )
        )

    @property
    def is_of_clips(self) -> bool:
        """Whether a row has several frames."""
        return len(self.rows[0].indices) > 1

    def parts(self, count: int) -> list[Batch]:
        """The batch in at most ``count`` parts of whole rows; parts without an object are left out."""
        parts = []
        for rows in np.array_split(np.arange(len(self.rows)), count):
            place = {int(row): new for new, row in enumerate(rows)}
            samples = tuple(
                replace(sample, row=place[sample.row]) for sample in self.samples if sample.row in place
            )
            if samples:
                parts.append(Batch(tuple(self.rows[row] for row in rows), samples, self.image_size))
        return parts

    def groups(self) -> list[list[int]]:
        """Numbers of samples whose prompts are of one shape, and so are decoded together."""
        by_kind: dict[str, list[int]] = {}
        for number, sample in enumerate(self.samples):
            by_kind.setdefault(sample.kind.name, []).append(number)
        return list(by_kind.values())


class Sampler:
    """Draws batches. Every one depends on the seed and its number alone, so that a training can be resumed.

    Args:
        images: the labelled images to learn from.
        image_size: side of the network's input, below which small objects vanish.
        objects_per_frame: at most.
        empty_share: of objects that are looked for where they are not.
        few_views: whether frames are seen in few views: embeddings of many could not be kept.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        images: Sequence[LabelledFrames],
        image_size: int,
        objects_per_frame: int,
        empty_share: float,
        few_views: bool,
        seed: int,
    ):
        self._images = images
        self._size = image_size
        self._objects = objects_per_frame
        self._empty = empty_share
        self._few_views = few_views
        self._seed = seed

    @cached_property
    def labelled(self) -> list[tuple[int, int]]:
        """(image, frame) of every frame with an object on it."""
        return [
            (number, index)
            for number, image in enumerate(self._images)
            for index in range(len(image))
            if visible_objects(image, index, self._size)
        ]

    @cached_property
    def labelled_in_volumes(self) -> list[tuple[int, int]]:
        """Those of ``labelled`` that have frames beside them."""
        return [(number, index) for number, index in self.labelled if len(self._images[number]) > 1]

    def batch(self, number: int, rows: int, frames_per_row: int = 1) -> Batch:
        """Batch ``number`` of a training: each epoch visits the labelled frames in another order.

        Args:
            number: of the step.
            rows: frames, or clips.
            frames_per_row: 1 for single frames; of a clip otherwise, and then only volumes take part.
        """
        rng = np.random.default_rng([self._seed, number])
        labelled = self.labelled if frames_per_row == 1 else self.labelled_in_volumes
        chosen: list[Row] = []
        samples: list[Sample] = []
        kinds = (draw_kind(rng), draw_kind(rng))
        for number_of_row, place in enumerate(self._places(labelled, number, rows)):
            image = self._images[place[0]]
            indices = _clip_from(image, place[1], frames_per_row, rng)
            row = Row(image, indices, draw_view(rng, self._few_views))
            chosen.append(row)
            samples += self._samples(number_of_row, row, kinds[number_of_row % 2], rng)
        return Batch(tuple(chosen), tuple(samples), self._size)

    def _places(self, labelled: Sequence[tuple[int, int]], number: int, rows: int) -> list[tuple[int, int]]:
        """Walks through a shuffled list of the frames, shuffled anew at its end."""
        count = len(labelled)
        places = []
        for position in range(number * rows, (number + 1) * rows):
            order = np.random.default_rng([self._seed, 1, position // count]).permutation(count)
            places.append(labelled[order[position % count]])
        return places

    def _samples(self, number: int, row: Row, kind: Kind, rng: np.random.Generator) -> list[Sample]:
        image, first = row.image, row.indices[0]
        values = rng.permutation(visible_objects(image, first, self._size))[: self._objects].tolist()
        absent = sorted(set(image.names) - set(image.objects[first]))
        if len(row.indices) == 1 and absent and rng.random() < self._empty * len(values):
            values[-1] = int(rng.choice(absent))
        samples = []
        for value in values:
            masks = tuple(row.mask(place, value) for place in range(len(row.indices)))
            samples.append(Sample(number, masks, draw_prompts(kind, masks[0], rng), kind))
        return samples


def _clip_from(image: LabelledFrames, index: int, count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A frame and those after it in one of the two directions; the last one stands still at the end."""
    step = 1 if rng.random() < 0.5 else -1
    return tuple(int(np.clip(index + step * t, 0, len(image) - 1)) for t in range(count))


def visible_objects(image: LabelledFrames, index: int, image_size: int) -> list[int]:
    """The label values on a frame that are large enough to be seen by a network of this input size."""
    scale = image_size**2 / (image.height * image.width)
    least = SMALLEST / min(scale, 1.0)
    return [value for value, area in sorted(image.objects[index].items()) if area >= least]


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """In memory that a GPU copies from while others compute, where there is a GPU."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
