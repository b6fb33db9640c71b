"""Prompts that a person could have given, drawn from a known mask: for training, evaluation and tests.

Masks are ``(H, W)``, indexed ``[y, x]``, any non-zero pixel being the object. Everything returned is in frame
pixels, x first: an integer is the centre of a pixel, a box is half-open.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from lib.errors import PromptError

MAX_JITTER = 20.0  # pixels: large objects are boxed no worse than this (Kirillov et al. 2023, appendix A)


def random_clicks(mask: ArrayLike, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Positive clicks drawn uniformly from the object, each on another pixel as far as there are enough.

    This is how BioSAM-2 (Yan et al. 2024, equation 1) draws 1, 3 or 5 clicks: all at once, before any answer.

    Args:
        mask: ``(H, W)``.
        n: Number of clicks.
        rng: Source of the randomness.

    Returns:
        float32 ``(n, 2)``, each (x, y).

    Raises:
        PromptError: The mask is empty or not 2-D.
    """
    ys, xs = np.nonzero(_object(mask))
    chosen = rng.choice(len(xs), size=n, replace=n > len(xs))
    return np.stack([xs[chosen], ys[chosen]], axis=1).astype(np.float32)


def central_click(mask: ArrayLike) -> tuple[int, int]:
    """The pixel (x, y) of the object that is farthest from its border; the image's edge is border too.

    Args:
        mask: ``(H, W)``.

    Raises:
        PromptError: The mask is empty or not 2-D.
    """
    return _centre(_object(mask), None)


def tight_box(mask: ArrayLike) -> NDArray[np.float32]:
    """The smallest box around the object: float32 ``(4,)`` x0, y0, x1, y1, half-open.

    Args:
        mask: ``(H, W)``.

    Raises:
        PromptError: The mask is empty or not 2-D.
    """
    ys, xs = np.nonzero(_object(mask))
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=np.float32)


def jittered_box(mask: ArrayLike, rng: np.random.Generator, jitter: float = 0.1) -> NDArray[np.float32]:
    """A box around the object as a person draws it, inside the image and at least one pixel on each side.

    Each border moves by normal noise whose deviation is ``jitter`` of the box's side, at most ``MAX_JITTER``
    pixels, as SAM was trained (Kirillov et al. 2023, appendix A).

    Args:
        mask: ``(H, W)``.
        rng: Source of the randomness.
        jitter: Deviation of the noise as a part of the box's side.

    Returns:
        float32 ``(4,)`` x0, y0, x1, y1, half-open.

    Raises:
        PromptError: The mask is empty or not 2-D.
    """
    box = tight_box(mask)
    height, width = np.shape(mask)
    sides = np.tile(box[2:] - box[:2], 2)
    noise = np.clip(rng.normal(scale=jitter, size=4) * sides, -MAX_JITTER, MAX_JITTER)
    moved = np.clip(box + noise, 0, [width, height, width, height]).astype(np.float32)
    thin = np.tile(moved[2:] - moved[:2] < 1, 2)
    return np.where(thin, box, moved).astype(np.float32)


def correction_click(
    truth: ArrayLike, prediction: ArrayLike, rng: np.random.Generator | None = None
) -> tuple[int, int, bool] | None:
    """The click with which a person mends a prediction: in the middle of its largest error.

    Errors are 4-connected regions of missing or of excess pixels; of two as large, a missing one is mended.

    Args:
        truth: ``(H, W)``.
        prediction: ``(H, W)``.
        rng: Chooses among pixels that are as central as each other; without it, it is the first of them.

    Returns:
        (x, y, positive): positive where the prediction lacks the object. None where there is no error.

    Raises:
        PromptError: The two have different shapes or are not 2-D.
    """
    wanted, found = _mask(truth), _mask(prediction)
    if wanted.shape != found.shape:
        raise PromptError(f"The truth is {wanted.shape} and the prediction {found.shape}; send equal shapes.")
    missing, excess = _largest_region(wanted & ~found), _largest_region(found & ~wanted)
    positive = bool(missing.sum() >= excess.sum())
    region = missing if positive else excess
    if not region.any():
        return None
    return (*_centre(region, rng), positive)


def _mask(mask: ArrayLike) -> NDArray[np.bool_]:
    result = np.asarray(mask) != 0
    if result.ndim != 2:
        raise PromptError(f"The mask has the shape {result.shape}; expected (H, W).")
    return result


def _object(mask: ArrayLike) -> NDArray[np.bool_]:
    result = _mask(mask)
    if not result.any():
        raise PromptError("The mask is empty; there is no object to prompt.")
    return result


def _largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    regions, count = ndimage.label(mask)
    if count == 0:
        return mask
    return regions == 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))


def _centre(region: NDArray[np.bool_], rng: np.random.Generator | None) -> tuple[int, int]:
    """(x, y) with the largest distance to the region's border, computed on its bounding box alone."""
    ys, xs = np.nonzero(region)
    top, left = int(ys.min()), int(xs.min())
    crop = np.pad(region[top : int(ys.max()) + 1, left : int(xs.max()) + 1], 1)
    distance = ndimage.distance_transform_edt(crop)
    candidates = np.argwhere(distance == distance.max())
    y, x = candidates[0 if rng is None else rng.integers(len(candidates))] - 1
    return left + int(x), top + int(y)
