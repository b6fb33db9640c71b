"""Classical methods: GrabCut for a box, random walker for clicks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import random_walker

Mask = NDArray[np.bool_]
Levels = NDArray[np.uint8]

GRABCUT_ITERATIONS = 5
SEED_RADIUS = 2  # pixels of a click's disc
WALKER_SIDE = 256  # most pixels along a side of the random walker's slice
_OBJECT, _BACKGROUND = 1, 2


class Click(NamedTuple):
    """A click at the centre of pixel (x, y) of a slice."""

    x: int
    y: int
    positive: bool


def grabcut(levels: Levels, box: tuple[int, int, int, int]) -> Mask:
    """OpenCV's GrabCut (Rother et al. 2004) from a rectangle.

    Args:
        levels: (H, W, 3), 0 to 255.
        box: x0, y0, x1, y1, half-open.

    Returns:
        (H, W). A box that covers the whole image is returned filled: GrabCut needs background.
    """
    x0, y0, x1, y1 = box
    height, width = levels.shape[:2]
    result = np.zeros((height, width), dtype=np.uint8)
    if (x0, y0, x1, y1) == (0, 0, width, height):
        return np.ones((height, width), dtype=bool)
    cv2.setRNGSeed(0)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    rectangle = (x0, y0, x1 - x0, y1 - y0)
    cv2.grabCut(
        np.ascontiguousarray(levels), result, rectangle, background, foreground, GRABCUT_ITERATIONS,
        cv2.GC_INIT_WITH_RECT,
    )  # fmt: skip
    return np.isin(result, (cv2.GC_FGD, cv2.GC_PR_FGD))


def filled_box(shape: tuple[int, ...], box: tuple[int, int, int, int]) -> Mask:
    """The box itself as a mask (H, W): the value of the prompt without any method."""
    x0, y0, x1, y1 = box
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def random_walk(levels: Levels, clicks: Sequence[Click]) -> Mask:
    """scikit-image's random walker (Grady 2006) with its default beta, from clicks.

    Clicks become discs of seeds, and the image's border the background that the method needs; with the border
    the masks are better after negative clicks too. Slices larger than ``WALKER_SIDE`` are reduced to it, the
    input size of the bundled network: the direct solver takes seconds at 512 pixels.

    Args:
        levels: (H, W, 3), 0 to 255; the mean of the channels is used.
        clicks: Clicks, at least one positive.

    Returns:
        (H, W).
    """
    height, width = levels.shape[:2]
    scale = min(1.0, WALKER_SIDE / max(height, width))
    small = Image.fromarray(levels).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    grey = np.asarray(small).mean(axis=2) / 255.0
    seeds = np.zeros(grey.shape, dtype=np.int32)
    seeds[[0, -1], :] = _BACKGROUND
    seeds[:, [0, -1]] = _BACKGROUND
    ys, xs = np.ogrid[: grey.shape[0], : grey.shape[1]]
    for click in clicks:
        x, y = ((place + 0.5) * scale - 0.5 for place in (click.x, click.y))
        disc = (xs - x) ** 2 + (ys - y) ** 2 <= SEED_RADIUS**2
        seeds[disc] = _OBJECT if click.positive else _BACKGROUND
    # The direct solver: iterative ones leave the range of probabilities at their default tolerance.
    found = random_walker(grey, seeds, mode="bf") == _OBJECT
    return np.asarray(Image.fromarray(found).resize((width, height), Image.Resampling.NEAREST))
