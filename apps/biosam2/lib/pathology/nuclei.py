"""Classical proposals of nuclei: stain, threshold and watershed. Each becomes a prompt for the network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import regionprops
from skimage.morphology import disk
from skimage.segmentation import relabel_sequential, watershed

# Grey level and colourfulness (difference of the channels) that tell fluorescence from stains on bright
# ground.
_DARK_GROUND, _COLOURLESS = 40.0, 8.0
# Haematoxylin absorbs red light; eosin absorbs little of it, and blue and brown stains are told apart by
# blue.
_RED, _BLUE = 1.0, -0.3
# Smallest differences between ground and nuclei, in grey levels and in optical density: less is noise.
_LEAST_LIGHT, _LEAST_DENSITY = 16.0, 0.12
_PERCENTILES = (1.0, 99.7)
# Share of Otsu's threshold, and of the mean in a neighbourhood of so many radii, that a nucleus exceeds.
# Tuned, as all below, on pictures that benchmarks/nuclei.py names.
_OF_OTSU, _OF_MEAN, _NEIGHBOURHOOD = 0.7, 1.05, 3.0
_ABOVE_MEAN = 0.03
# Of the radius: smoothing, smallest distance of two centres, opening; and the smallest area of a nucleus.
_SMOOTHING, _APART, _OPENING, _LEAST_AREA = 0.2, 0.7, 0.25, 0.3
# Weight of the stain beside the distance to the border where touching nuclei are parted.
_STAIN_WEIGHT = 0.5
# Radius that detection works with, of the typical nucleus's: smaller ones are to be found as well.
_OF_TYPICAL = 0.6
# Radius in pixels that the search for the typical one begins with, its limits, and the number of steps.
_FIRST_RADIUS, RADIUS_RANGE, _STEPS = 8.0, (4.0, 40.0), 3


@dataclass(frozen=True, eq=False)
class Proposals:
    """Candidates for nuclei in a picture.

    Attributes:
        labels: int (H, W), numbers from 1 on; 0 elsewhere.
        stain: float32 (H, W), 0 (ground) to 1 (nuclei).
        radius: Radius of a typical nucleus in pixels.
    """

    labels: NDArray[np.int_]
    stain: NDArray[np.float32]
    radius: float

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """(N, 4) edges x0, y0, x1, y1 in the order of the numbers."""
        found = [(box[1], box[0], box[3], box[2]) for box in (p.bbox for p in regionprops(self.labels))]
        return np.array(found, dtype=float).reshape(-1, 4)

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """(N, 2) pixel index x, y of the point farthest from each candidate's border."""
        points = []
        for item in regionprops(self.labels):
            depth = ndimage.distance_transform_edt(np.pad(item.image, 1))[1:-1, 1:-1]
            row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
            points.append((column + item.bbox[1], row + item.bbox[0]))
        return np.array(points, dtype=float).reshape(-1, 2)


def propose_nuclei(pixels: NDArray[np.uint8], radius_range: tuple[float, float] = RADIUS_RANGE) -> Proposals:
    """Finds candidates for nuclei, bright on dark (fluorescence) or stained on bright.

    The typical radius is estimated from the candidates' areas, and they are detected again with it.

    Args:
        pixels: uint8 (H, W, 3).
        radius_range: Limits of the typical radius in pixels.
    """
    stain, is_fluorescent = stain_map(pixels)
    radius = float(np.clip(_FIRST_RADIUS, *radius_range))
    labels = _detect(stain, _OF_TYPICAL * radius, is_fluorescent)
    for _ in range(_STEPS - 1):
        areas = np.sort(np.bincount(labels.ravel())[1:])
        if not len(areas):
            break
        sums = np.cumsum(areas)
        # Specks are many and small, so each pixel has a vote and not each candidate.
        typical = areas[np.searchsorted(sums, sums[-1] / 2)]
        radius = float(np.clip(np.sqrt(typical / np.pi), *radius_range))
        labels = _detect(stain, _OF_TYPICAL * radius, is_fluorescent)
    return Proposals(labels, stain, radius)


def stain_map(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], bool]:
    """Amount of nuclear stain, and whether the picture shows fluorescence.

    Args:
        pixels: uint8 (H, W, 3).

    Returns:
        float32 (H, W) from 0 (ground) to 1 (nuclei).
    """
    levels = pixels.astype(np.float32)
    light = levels.max(axis=2)
    colour = float((light - levels.min(axis=2)).mean())
    low, middle, high = np.percentile(light, (0.5, 50, 99.5))
    is_fluorescent = bool(middle < _DARK_GROUND or (colour < _COLOURLESS and middle - low < high - middle))
    if is_fluorescent:
        return _normalized(light, _LEAST_LIGHT), True
    density = -np.log(np.maximum(levels, 1.0) / 255.0)
    amount = (
        density.mean(axis=2) if colour < _COLOURLESS else _RED * density[..., 0] + _BLUE * density[..., 2]
    )
    return _normalized(amount, _LEAST_DENSITY), False


def _normalized(amount: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    low, high = np.percentile(amount, _PERCENTILES)
    return np.clip((amount - low) / max(high - low, least), 0, 1).astype(np.float32)


def _detect(stain: NDArray[np.float32], radius: float, is_fluorescent: bool) -> NDArray[np.int_]:
    """Numbered candidates of at least a share of a radius's area, int (H, W)."""
    smooth = ndimage.gaussian_filter(stain, max(0.7, radius * _SMOOTHING))
    if np.ptp(smooth) == 0:
        return np.zeros(stain.shape, int)
    mean = ndimage.uniform_filter(smooth, int(2 * _NEIGHBOURHOOD * radius) + 1)
    local = mean * _OF_MEAN if is_fluorescent else mean + _ABOVE_MEAN
    mask = (smooth > _OF_OTSU * threshold_otsu(smooth)) & (smooth > local)
    mask = ndimage.binary_opening(mask, disk(max(1, round(radius * _OPENING))))
    mask = ndimage.binary_fill_holes(mask)
    if not mask.any():
        return np.zeros(stain.shape, int)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), max(1.0, radius * 0.2)) / radius
    bright = ndimage.gaussian_filter(stain, max(1.0, radius * 0.4)) / smooth[mask].mean()
    height = depth + _STAIN_WEIGHT * bright
    pieces, _ = ndimage.label(mask)
    distance = max(2, round(radius * _APART))
    peaks = peak_local_max(height, min_distance=distance, labels=pieces, exclude_border=False)
    seeds = np.zeros(stain.shape, int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-height, seeds, mask=mask)
    areas = np.bincount(labels.ravel())
    labels[(areas < max(15.0, _LEAST_AREA * np.pi * radius**2))[labels]] = 0
    return np.asarray(relabel_sequential(labels)[0])
