"""Other views of a frame: mirrored, lighter or darker, of more or less contrast; the truth goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_LEVELS = 255.0
# Factors of contrast and exponents of brightness are drawn between these and their inverses.
CONTRAST = 1.25
GAMMA = 1.4

D = TypeVar("D", np.uint8, np.bool_)


@dataclass(frozen=True)
class View:
    """How a frame is looked at; the default is as it is.

    Attributes:
        mirrored: along (y, x).
        contrast: factor about the mean level.
        gamma: exponent of the levels between 0 and 1.
    """

    mirrored: tuple[bool, bool] = (False, False)
    contrast: float = 1.0
    gamma: float = 1.0

    def frame(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame (H, W, 3) in this view."""
        seen = self.mask(levels)
        if self.contrast == 1.0 and self.gamma == 1.0:
            return seen
        table = np.arange(256) / _LEVELS
        middle = float(seen.mean()) / _LEVELS
        table = np.clip(middle + self.contrast * (table - middle), 0, 1) ** self.gamma
        return np.rint(table * _LEVELS).astype(np.uint8)[seen]

    def mask(self, array: NDArray[D]) -> NDArray[D]:
        """A mask (H, W), or whatever begins with these axes, in this view."""
        along = [axis for axis, mirrored in enumerate(self.mirrored) if mirrored]
        return np.ascontiguousarray(np.flip(array, along)) if along else array


def draw_view(rng: np.random.Generator, few: bool) -> View:
    """A random view: each mirror image as often as the other.

    Args:
        rng: source of the randomness.
        few: whether there are but twelve of them, four mirror images in three shades. Where embeddings are
            kept, those of all shades could not be.
    """
    mirrored = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
    if few:
        return View(mirrored, gamma=float(GAMMA ** rng.integers(-1, 2)))
    contrast, gamma = (float(limit ** rng.uniform(-1, 1)) for limit in (CONTRAST, GAMMA))
    return View(mirrored, contrast, gamma)
