"""A synthetic light microscopy picture of stained cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from sample_study.case import Case
from sample_study.shapes import Mask, smooth_field, star_convex

SIZE = (256, 256)  # (W, H) pixels
COUNT = 18
RADII = (11.0, 21.0)  # pixels
GAP = 3  # pixels between two cells
ATTEMPTS = 2000

# Haematoxylin stains nuclei violet, eosin everything else pink.
GROUND = (232.0, 190.0, 214.0)
NUCLEUS = (112.0, 74.0, 150.0)
NOISE_LEVELS = 4.0


def cells(rng: np.random.Generator) -> Case:
    """Draws the cells; each is one structure, ``cell 1`` the largest."""
    masks = sorted(_placed(rng), key=np.count_nonzero, reverse=True)
    truth = np.zeros(SIZE, np.uint8)
    for index, mask in enumerate(masks, start=1):
        truth[mask] = index
    labels = {f"cell {index}": index for index in range(1, len(masks) + 1)}
    return Case("cells", _stained(truth, rng), truth, labels)


def _placed(rng: np.random.Generator) -> list[Mask]:
    """Cells that touch neither each other nor the border."""
    taken: Mask = np.zeros(SIZE, bool)
    masks: list[Mask] = []
    for _ in range(ATTEMPTS):
        radius = rng.uniform(*RADII)
        margin = 1.5 * radius
        centre = [rng.uniform(margin, n - margin) for n in SIZE]
        mask = star_convex(SIZE, centre, radius, 0.18, rng)
        if not (mask & taken).any():
            masks.append(mask)
            taken |= binary_dilation(mask, iterations=GAP)
        if len(masks) == COUNT:
            break
    return masks


def _stained(truth: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Colours ``(W, H, 3)``: stain that varies between and within cells, on streaky background."""
    strength = np.concatenate([[0.0], rng.uniform(0.75, 1.1, truth.max())])[truth]
    strength += np.where(truth > 0, 0.08, 0.1) * smooth_field(SIZE, (2.5, 2.5), rng)
    strength = gaussian_filter(strength, 0.8)[..., None]
    image = np.asarray(GROUND) * (1 - strength) + np.asarray(NUCLEUS) * strength
    image += 6 * smooth_field(SIZE, (20, 6), rng)[..., None]
    image += NOISE_LEVELS * rng.standard_normal(image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
