"""What people use without a network: GrabCut for a box, random walker for clicks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import random_walker

Mask = NDArray[np.bool_]
Levels = NDArray[np.uint8]

GRABCUT_ITERATIONS = 5
SEED_RADIUS = 2  # pixels, of the disc that a click paints
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
        (H, W). A box that leaves no background to learn from is returned filled.
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
    """The box itself, (H, W): what a prompt is worth before anything was computed."""
    x0, y0, x1, y1 = box
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def random_walk(levels: Levels, clicks: Sequence[Click]) -> Mask:
    """scikit-image's random walker (Grady 2006) with its default beta, from clicks.

    Clicks paint discs of seeds. The method needs background, so the image's border is that; with it the masks
    are better after negative clicks too.

    Args:
        levels: (H, W, 3), 0 to 255; the channels' mean is used.
        clicks: at least one is positive.

    Returns:
        (H, W).
    """
    grey = levels.mean(axis=2) / 255.0
    seeds = np.zeros(grey.shape, dtype=np.int32)
    seeds[[0, -1], :] = _BACKGROUND
    seeds[:, [0, -1]] = _BACKGROUND
    ys, xs = np.ogrid[: grey.shape[0], : grey.shape[1]]
    for click in clicks:
        disc = (xs - click.x) ** 2 + (ys - click.y) ** 2 <= SEED_RADIUS**2
        seeds[disc] = _OBJECT if click.positive else _BACKGROUND
    # Solved directly: the iterative modes leave the range of probabilities at their default tolerance.
    return random_walker(grey, seeds, mode="bf") == _OBJECT
