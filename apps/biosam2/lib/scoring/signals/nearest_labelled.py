"""What is on the labelled slice that looks most like a frame, followed onto it through the memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib.engine.frames import FrameSequence, SingleFrame
from lib.engine.memory import MemoryBank
from lib.engine.predictor import Predictor
from lib.prompts.types import FramePrompts
from lib.scoring.signals.embedding import Vector, frame_vector
from lib.scoring.signals.object_signals import piece_boxes
from lib.scoring.signals.prompt_sources import Suggestion

Mask = NDArray[np.bool_]

# Classes that are looked for on one frame, each of which costs a step through the memory, and pieces of each
# that are looked at: nuclei are many of one class.
MOST_CLASSES = 3
MOST_PIECES = 3
# The network is told of a clip as long as it looks back, so that one frame's distance is what it always is.
_CLIP = 16
_LABELLED, _ASKED = 0, 1


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """One slice that a person labelled; a ``FrameSequence`` of one frame.

    Attributes:
        digest: of the content of the image that it is from.
        index: of the slice in that image.
        levels: uint8 (H, W, 3).
        masks: class name to (H, W), none of them empty.
    """

    digest: str
    index: int
    levels: NDArray[np.uint8]
    masks: dict[str, Mask]

    @property
    def height(self) -> int:
        """Pixels along y."""
        return int(self.levels.shape[0])

    @property
    def width(self) -> int:
        """Pixels along x."""
        return int(self.levels.shape[1])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The slice, uint8 (H, W, 3), whatever the index."""
        return self.levels

    def key(self, index: int) -> Hashable:
        """Tells it from the other slices of its image."""
        return ("labelled", self.index)


@dataclass
class _Known:
    """What was made of a labelled slice so far."""

    vector: Vector
    banks: dict[str, MemoryBank] = field(default_factory=dict)


class NearestLabelSource:
    """Mask prompts on the nearest labelled slice, whose objects are then tracked on the frame.

    Args:
        slices: that people labelled; at least one with an object.
        most: classes that are looked for, those of the largest objects.

    Raises:
        ValueError: there is no slice.
    """

    def __init__(self, slices: Sequence[LabelledSlice], most: int = MOST_CLASSES):
        if not slices:
            raise ValueError("there is no labelled slice to start from; use the grid")
        self._slices = list(slices)
        self._most = most
        self._known: dict[int, _Known] = {}

    @property
    def name(self) -> str:
        """Without the slices: one label more does not make all scores anew."""
        return self.name_for(self._most)

    @staticmethod
    def name_for(most: int = MOST_CLASSES) -> str:
        """The name of a source that looks for so many classes, before there is one."""
        return f"nearest {most}"

    def suggest(self, predictor: Predictor, frames: FrameSequence, index: int) -> list[Suggestion]:
        """A box around each object of the nearest slice where it was found on the frame.

        Slices of the image itself are not taken: what a person drew there would be found at once.
        """
        number = self._nearest(predictor, frames, index)
        if number is None:
            return []
        suggestions = []
        for name, bank in self._banks(predictor, number).items():
            found = predictor.track(SingleFrame(frames, index, _CLIP), _ASKED, bank, reverse=False)
            bank.forget_tracked()
            boxes = piece_boxes(found.mask, MOST_PIECES)
            suggestions += [Suggestion(name, box, found.presence) for box in boxes or (None,)]
        return sorted(suggestions, key=lambda item: -(item.presence or 0.0))

    def _nearest(self, predictor: Predictor, frames: FrameSequence, index: int) -> int | None:
        vector = frame_vector(predictor.features(frames, index))
        best, likeness = None, -np.inf
        for number, item in enumerate(self._slices):
            if item.digest == frames.digest:
                continue
            if number not in self._known:
                self._known[number] = _Known(frame_vector(predictor.features(item, 0)))
            if (alike := float(vector @ self._known[number].vector)) > likeness:
                best, likeness = number, alike
        return best

    def _banks(self, predictor: Predictor, number: int) -> dict[str, MemoryBank]:
        known, item = self._known[number], self._slices[number]
        if not known.banks:
            by_size = sorted(item.masks, key=lambda name: (-int(item.masks[name].sum()), name))
            for name in by_size[: self._most]:
                bank = predictor.new_bank()
                prompts = FramePrompts.of_mask(item.masks[name])
                predictor.segment(SingleFrame(item, 0, _CLIP), _LABELLED, prompts, bank)
                known.banks[name] = bank
        return known.banks
