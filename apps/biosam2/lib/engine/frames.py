"""What the engine asks of an image's frames: a sequence that knows its content's digest."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
