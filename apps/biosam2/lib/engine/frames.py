"""Frames as the engine reads them: a sequence with its content's digest, one frame, frames ahead, a crop."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lib.engine.network import network_image
from lib.transforms.frames import Crop


class FrameSequence(Protocol):
    """Frames of one image, such as ``lib.transforms.frames.FrameStack``."""

    @property
    def height(self) -> int:
        """Pixels of a frame along y."""

    @property
    def width(self) -> int:
        """Pixels of a frame along x."""

    @property
    def digest(self) -> str:
        """Digest of the image's content; empty: embeddings of its frames are not cached."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index``: uint8 (H, W, 3)."""

    def key(self, index: int) -> Hashable:
        """Equal for equal frames of images with one digest."""


class FramesOfImage:
    """Other frames of the same image; what a subclass does not define is that of the image's own frames.

    Attributes:
        frames: Frames of the image.
    """

    frames: FrameSequence

    @property
    def height(self) -> int:
        """Pixels of a frame along y."""
        return self.frames.height

    @property
    def width(self) -> int:
        """Pixels of a frame along x."""
        return self.frames.width

    @property
    def digest(self) -> str:
        """Digest of the image's content."""
        return self.frames.digest

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index``: uint8 (H, W, 3)."""
        return self.frames[index]

    def key(self, index: int) -> Hashable:
        """Key of the frame among those of its image."""
        return self.frames.key(index)


@dataclass(frozen=True)
class SingleFrame(FramesOfImage):
    """One frame as a sequence: every index gives it.

    Attributes:
        frames: Frames of the image.
        index: Index of the frame among them.
        length: Number of frames that the network is told.
    """

    frames: FrameSequence
    index: int
    length: int = 1

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The frame, uint8 (H, W, 3), whatever the index."""
        return self.frames[self.index]

    def key(self, index: int) -> Hashable:
        """Key of the frame among those of its image, whatever the index."""
        return self.frames.key(self.index)


# Frames that are ready before they are needed: at 1024 px each takes 13 MB.
AHEAD = 4


class FramesAhead(FramesOfImage):
    """A sequence of frames that also gives the network's images of them, prepared along a way.

    Args:
        frames: Frames of the image.
        way: Indices of the frames in the order in which they are visited.
    """

    def __init__(self, frames: FrameSequence, way: Sequence[int]) -> None:
        self.frames = frames
        self._way = list(way)
        self._place = {index: place for place, index in enumerate(self._way)}
        self._images: dict[int, Future[torch.Tensor]] = {}
        self._thread = ThreadPoolExecutor(1, "frames-ahead")

    def __enter__(self) -> FramesAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def onward(self, index: int, count: int) -> list[int]:
        """A frame and those that are visited after it, ``count`` in all at most."""
        place = self._place.get(index)
        return [index] if place is None else self._way[place : place + count]

    def image(self, index: int, size: int) -> torch.Tensor:
        """The network's image of a frame, (1, 3, size, size); those after it are prepared from now on."""
        prepared = self._images.pop(index, None)
        for following in self.onward(index, AHEAD + 1)[1:]:
            if following not in self._images:
                self._images[following] = self._thread.submit(self._prepare, following, size)
        return self._prepare(index, size) if prepared is None else prepared.result()

    def _prepare(self, index: int, size: int) -> torch.Tensor:
        return network_image(self.frames[index], size)


@dataclass(frozen=True)
class CroppedFrames(FramesOfImage):
    """The frames of an image, cut to a crop.

    Attributes:
        frames: Frames of the image.
        crop: Part of each frame that is shown.
    """

    frames: FrameSequence
    crop: Crop

    @property
    def height(self) -> int:
        """Pixels of the crop along y."""
        return self.crop.bottom - self.crop.top

    @property
    def width(self) -> int:
        """Pixels of the crop along x."""
        return self.crop.right - self.crop.left

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` in the crop: uint8 (H, W, 3)."""
        crop = self.crop
        return np.ascontiguousarray(self.frames[index][crop.top : crop.bottom, crop.left : crop.right])

    def key(self, index: int) -> Hashable:
        """Equal for equal crops of equal frames."""
        return (self.frames.key(index), self.crop)
