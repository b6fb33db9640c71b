"""Tissue on the overview of a slide."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from lib.errors import BioSam2Error
from lib.images.cache import ImageCache
from lib.pathology.opening import is_slide_file, open_slide

logger = logging.getLogger(__name__)

# Longer side of the overview in pixels.
OVERVIEW_SIDE = 1024
# Smallest difference between tissue and glass in grey levels: less is noise and dirt.
_LEAST_CONTRAST = 8.0
# Largest picture that is opened for an overview, in pixels.
_MOST_PIXELS = 1 << 26


def tissue_mask(overview: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an overview differs from glass, or from the dark ground of fluorescence.

    Args:
        overview: uint8 (H, W, 3).

    Returns:
        bool (H, W); all false where nothing differs.
    """
    levels = ndimage.gaussian_filter(overview.astype(np.float32), (1, 1, 0))
    light = levels.mean(axis=2)
    low, middle, high = np.percentile(light, (1, 50, 99))
    # The ground is bright or dark, whichever extreme most of the slide is nearer to.
    ground = np.median(
        levels[light >= high - 4 if high - middle < middle - low else light <= low + 4], axis=0
    )
    difference = np.abs(levels - ground).max(axis=2)
    if float(difference.max()) < _LEAST_CONTRAST:
        return np.zeros(light.shape, bool)
    return np.asarray(difference > max(_LEAST_CONTRAST, threshold_otsu(difference) / 2))


def tissue_of(path: Path) -> NDArray[np.bool_] | None:
    """Tissue mask of a slide; None for other images, and where there is no readable overview."""
    if not is_slide_file(path):
        return None
    try:
        with open_slide(path, ImageCache(0, _MOST_PIXELS)) as slide:
            mask = tissue_mask(slide.overview(OVERVIEW_SIDE))
    except BioSam2Error as error:
        logger.warning("No tissue mask of %s: %s", path.name, error)
        return None
    return mask if mask.any() else None
