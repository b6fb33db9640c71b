"""Follows objects through frames that come one at a time, each with the object's box on the frame before.

CVAT's tracker sends a frame and a box, and nothing of who asks, of which object, or of which video. The box
tells: it is the one that this object was just seen in, which the client took from the answer before. So what
was seen is kept for a while, and a frame whose box is known goes on from there through SAM 2's memory, where
an object keeps its shape when a box alone would lose it: behind another, or beside one that looks alike.

Nothing else depends on what is kept. A frame whose box is not known is segmented from the box, as a first
frame is. What was seen is never changed, so a request that is sent again gets the same answer, and a person
can go back some frames and take another way from there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lib.engine.frames import FrameSequence, SingleFrame
from lib.engine.memory import MemoryBank
from lib.engine.predictor import FrameMask, Predictor
from lib.prompts.types import FramePrompts
from lib.transforms.components import fill_holes

# A person who looks at one frame for longer starts anew from the box. At 1024 px a frame's memory takes
# 1.3 MB, and a sighting shares all but its own with the one before.
KEPT_SECONDS = 600.0
MOST_KEPT = 32

# Clients take a box from a mask's outline, whose corners they round to whole pixels.
BOX_ROUNDING = 1.0

# Grey levels that a frame may differ by from the one it goes on from, on the mean of a small copy. Any two
# frames of an echocardiogram differ by 4 at most, and CT slices that are three apart by 10; videos of
# different things by 9 (two that are mostly black) to 130.
MOST_DIFFERENT = 12.0
SMALL = (16, 16)

# The network is told how long a video is, and nobody knows: longer than it looks back.
UNKNOWN_LENGTH = 1 << 20


@dataclass(frozen=True, eq=False)
class Sighting:
    """One object on one frame, as it was answered.

    Attributes:
        video: Client, weights and size: equal for all frames of one video.
        digest: Digest of the frame's content.
        small: float32 (h, w), the frame's grey levels.
        boxes: float32 (n, 4), x0, y0, x1, y1 in pixels, one of which the client sends with the next frame:
            that of the answer, and that of the request where it was the object's first, or the answer empty.
        number: Number of the frame, 0 where the object was first boxed.
        bank: the object's memory, up to and with this frame.
        seconds: Time of the answer.
    """

    video: Hashable
    digest: str
    small: NDArray[np.float32]
    boxes: NDArray[np.float32]
    number: int
    bank: MemoryBank
    seconds: float

    def distance(self, box: NDArray[np.float32]) -> float:
        """How far a box is from the nearest of ``boxes``, in pixels, at the corner where it is farthest."""
        return float(np.abs(self.boxes - box).max(axis=1).min())


class FrameTracker:
    """Follows objects through frames that come one at a time. Safe to use from several threads.

    Args:
        most: Sightings that are kept.
        seconds: Time for which they are kept.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        most: int = MOST_KEPT,
        seconds: float = KEPT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._sightings: list[Sighting] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sightings)

    def follow(
        self,
        predictor: Predictor,
        frames: FrameSequence,
        index: int,
        prompts: FramePrompts,
        client: Hashable = None,
    ) -> tuple[FrameMask, int]:
        """The object on a frame: from memory where its box is that of a sighting, else from the box.

        Args:
            predictor: Network.
            frames: Frames of the image.
            index: Index of the frame.
            prompts: Box, and no points.
            client: Name of the client, where it is known; answers to others are not used.

        Returns:
            The object in one piece without holes, from which every client takes the same box; and how many
            frames this is from the one where it was named, 0 where it was segmented from the box.
        """
        if prompts.box is None:
            raise ValueError("an object is followed by its box, and the prompts have none")
        video = (client, predictor.key, frames.height, frames.width)
        small = _small(frames[index])
        before = self._find(video, frames.digest, small, prompts.box)
        number = before.number + 1 if before else 0
        bank = before.bank.copy() if before else predictor.new_bank()
        frame = SingleFrame(frames, index, UNKNOWN_LENGTH)
        if before:
            found = predictor.track(frame, number, bank, reverse=False)
        else:
            found = predictor.segment(frame, number, prompts, bank)
        found = replace(found, mask=_one_piece(found.mask, prompts.box))
        boxes = [_box(found.mask)] if found.mask.any() else [prompts.box]
        if before is None:
            # CVAT sends the box that a person drew twice: with its own frame, of which it leaves the answer
            # out, and with the next.
            boxes.append(prompts.box)
        self._keep(Sighting(video, frames.digest, small, np.stack(boxes), number, bank, self._clock()))
        return found, number

    def _find(
        self, video: Hashable, digest: str, small: NDArray[np.float32], box: NDArray[np.float32]
    ) -> Sighting | None:
        """The sighting that a frame goes on from: the nearest, then the most alike, then the latest."""
        oldest = self._clock() - self._seconds
        with self._lock:
            self._sightings = [seen for seen in self._sightings if seen.seconds >= oldest]
            latest_first = self._sightings[::-1]
        ranked = [
            (seen.distance(box), float(np.abs(seen.small - small).mean()), seen)
            for seen in latest_first
            if seen.video == video and seen.digest != digest
        ]
        possible = [rank for rank in ranked if rank[0] <= BOX_ROUNDING and rank[1] <= MOST_DIFFERENT]
        return min(possible, key=lambda rank: rank[:2])[2] if possible else None

    def _keep(self, sighting: Sighting) -> None:
        with self._lock:
            self._sightings = [*self._sightings, sighting][-self._most :]


def _small(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) to its mean grey levels on a coarse grid."""
    grey = Image.fromarray(frame).convert("L").resize(SMALL, Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.float32)


def _one_piece(mask: NDArray[np.bool_], box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The piece of a mask that has most of a box, without holes; the largest one where none has any.

    The box is where the object was: a larger piece elsewhere is a neighbour that looks alike.
    """
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count > 1:
        x0, y0, x1, y1 = (int(value) for value in box)
        here = np.bincount(pieces[y0 : y1 + 1, x0 : x1 + 1].ravel(), minlength=count + 1)[1:]
        sizes = here if here.any() else np.bincount(pieces.ravel())[1:]
        mask = pieces == 1 + int(np.argmax(sizes))
    return fill_holes(mask)


def _box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The first and the last pixel of a mask along x and y, as its outline gives them: x0, y0, x1, y1."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()], dtype=np.float32)
