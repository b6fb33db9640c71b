"""Short videos with a known truth: an object that moves, turns and changes shape, and what gets in its way.

Frames are uint8 (H, W, 3) and truths bool (H, W), both indexed [y, x]; no frame is square.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from tests.support.phantoms import EDGE_BLUR

HEIGHT, WIDTH, COUNT = 96, 128, 24
GROUND = (100, 70, 60)
OBJECT = (190, 150, 130)
COVER = (60, 70, 120)


@dataclass(frozen=True)
class Video:
    """Frames (T, H, W, 3) and, for the same frames, where the object can be seen (T, H, W)."""

    frames: np.ndarray
    truth: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def box(self) -> list[int]:
        """[x0, y0, x1, y1] that a person draws around the object on the first frame."""
        return outline_box(self.truth[0], margin=1)

    @property
    def fastest(self) -> float:
        """Pixels that the object's centre moves by from one frame to the next, at most."""
        centres = [np.mean(np.nonzero(truth), axis=1) for truth in self.truth]
        return max(float(np.linalg.norm(b - a)) for a, b in pairwise(centres))


def outline_box(mask: np.ndarray, margin: int = 0) -> list[int]:
    """[x0, y0, x1, y1] of the first and the last pixels of a mask (H, W)."""
    rows, columns = np.nonzero(mask)
    low, high = [columns.min(), rows.min()], [columns.max(), rows.max()]
    return [int(v) - margin for v in low] + [int(v) + margin for v in high]


def crossing(*, covered: bool = False, mirrored: bool = False, seed: int = 0) -> Video:
    """An ellipse that crosses the picture while it turns and changes its two radii.

    Args:
        covered: by a rod that comes in from below, hides up to half of it, and goes away again.
        mirrored: from right to left, and in other colours.
        seed: of the ground's texture and the noise, and of where the way begins; below 9.
    """
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(0.0, 1.0, (HEIGHT, WIDTH)), 4)
    texture *= 4 / texture.std()
    frames, truth = [], []
    for at in np.linspace(0.0, 1.0, COUNT):
        x, y = 26 + 2 * seed + 60 * at, 58 - 20 * np.sin(3 * at)
        radii = (13 + 4 * np.sin(6 * at), 10 - 3 * np.sin(6 * at))
        shape = _ellipse((x, y), radii, turned=0.6 * np.sin(4 * at))
        picture = np.stack([level + texture for level in GROUND], axis=-1)
        picture[shape] = OBJECT
        if covered:
            rod = np.zeros_like(shape)
            top = y + 24 - 24 * np.sin(np.pi * at)
            rod[round(top) :, round(x) - 30 : round(x) + 30] = True
            picture[rod] = COVER
            shape &= ~rod
        picture = ndimage.gaussian_filter(picture, (EDGE_BLUR, EDGE_BLUR, 0))
        frames.append(picture + rng.normal(0.0, 5.0, picture.shape))
        truth.append(shape)
    video = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    if mirrored:
        return Video(video[:, :, ::-1, ::-1].copy(), np.array(truth)[:, :, ::-1].copy())
    return Video(video, np.array(truth))


def _ellipse(centre: tuple[float, float], radii: tuple[float, float], turned: float) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    across, down = x - centre[0], y - centre[1]
    u = across * np.cos(turned) + down * np.sin(turned)
    v = down * np.cos(turned) - across * np.sin(turned)
    return (u / radii[0]) ** 2 + (v / radii[1]) ** 2 <= 1
