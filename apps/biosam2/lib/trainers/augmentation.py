"""Augmentation of frames: flips, contrast and brightness, the same for all masks of a frame.

Augmentations are small hashable values: with a frozen encoder the embedding of each augmented frame is cached
under its key, which random transforms of a library do not provide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

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

    Args:
        rng: Random generator.
        few: Whether to draw from twelve augmentations only, four flips with three gammas, so that the
            embeddings of all of them can be cached.
    """
    flipped = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
    if few:
        return Augmentation(flipped, gamma=float(GAMMA ** rng.integers(-1, 2)))
    contrast, gamma = (float(limit ** rng.uniform(-1, 1)) for limit in (CONTRAST, GAMMA))
    return Augmentation(flipped, contrast, gamma)
