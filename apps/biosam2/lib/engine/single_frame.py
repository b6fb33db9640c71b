"""One frame that stands for a whole video."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.engine.predictor import Frames


@dataclass(frozen=True)
class Still:
    """One frame at every place of a video of which nothing else is here.

    Attributes:
        frames: of its image.
        index: of the frame among them.
        length: that the network is told.
    """

    frames: Frames
    index: int
    length: int

    @property
    def height(self) -> int:
        """Pixels of the frame along y."""
        return self.frames.height

    @property
    def width(self) -> int:
        """Pixels of the frame along x."""
        return self.frames.width

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        """The frame, uint8 (H, W, 3), whatever the place."""
        return self.frames[self.index]

    def key(self, place: int) -> Hashable:
        """That of the frame, so that it is encoded once."""
        return self.frames.key(self.index)
