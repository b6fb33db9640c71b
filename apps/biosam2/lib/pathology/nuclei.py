"""Classical proposals of nuclei: stain, threshold and watershed. Each becomes a prompt for the network.

Nuclei of one slide differ in size and stain from place to place: the ground is levelled in windows, nuclei of
several sizes are looked for, and a logistic regression tells which of the candidates are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit
from skimage.filters import threshold_otsu
from skimage.morphology import disk
from skimage.segmentation import expand_labels, watershed

from lib.engine.runtime import raise_if_cancelled

# Grey level and colourfulness (difference of the channels) that tell fluorescence from stains on bright
# ground.
_DARK_GROUND, _COLOURLESS = 40.0, 8.0
# Haematoxylin absorbs red light; eosin absorbs little of it, and blue and brown stains are told apart by
# blue.
_RED, _BLUE = 1.0, -0.3
# Smallest differences between ground and nuclei, in grey levels and in optical density: less is noise.
_LEAST_LIGHT, _LEAST_DENSITY = 16.0, 0.12
# Mean optical density below which a pixel is glass. Surroundings are compared without their glass, where so
# large a share of them is tissue: else all that lies at the border of dark tissue stands out.
# Percentiles of the stain that become 0 and 1, and the side in pixels of the windows that they are taken in.
_GLASS, _LEAST_TISSUE = 0.1, 0.25
_PERCENTILES, _WINDOW = (1.0, 99.7), 320
# Share of Otsu's threshold, and of the mean in a neighbourhood of so many radii, that a nucleus exceeds.
# Tuned, as all below, on pictures that benchmarks/nuclei.py names.
_OF_OTSU, _OF_MEAN, _NEIGHBOURHOOD = 0.7, 1.05, 3.0
_ABOVE_MEAN = 0.03
# Of the radius: smoothing, smallest distance of two centres, opening; and the smallest area of a nucleus.
_SMOOTHING, _APART, _OPENING, _LEAST_AREA = 0.2, 0.7, 0.25, 0.3
# Weight of the stain beside the distance to the border where touching nuclei are parted.
_STAIN_WEIGHT = 0.5
# Limits of the radius in pixels of the nuclei that are looked for, and the ratio of one radius to the next.
RADIUS_RANGE, _RATIO = (3.5, 25.0), 1.65
# Logistic regression of "IoU with a labelled nucleus above 0.5" on a candidate's measurements, for coloured
# and for grey pictures: constant, logarithm of its area in that of the ellipse with its moments, contrast of
# the stain to the surroundings, mean stain, shorter axis over longer axis, logarithm of its area in that of
# the circle that was looked for, logarithm of the radius, contrast of the red and the blue density. Fitted by
# `python -m benchmarks.nuclei --fit proposals`.
WEIGHTS = {
    True: (-2.44, 17.04, 4.67, -3.7, 0.5, 1.09, 0.86, 2.95, 3.34),
    False: (1.17, 32.0, 4.24, -2.06, 0.96, 0.19, -0.77, -0.42, -0.42),
}
# Score from which on a candidate is shown to the network, and the IoU above which two are one.
_LEAST_SCORE, _SAME = 0.25, 0.5


@dataclass(frozen=True, eq=False)
class Proposal:
    """A candidate for a nucleus.

    Attributes:
        top: Row of its box.
        left: Column of its box.
        mask: bool (h, w), its pixels in the box.
        score: Estimated probability of being a nucleus, 0 to 1.
    """

    top: int
    left: int
    mask: NDArray[np.bool_]
    score: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Edges x0, y0, x1, y1."""
        rows, columns = self.mask.shape
        return self.left, self.top, self.left + columns, self.top + rows

    @cached_property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    @property
    def radius(self) -> float:
        """Radius of the circle with its area, in pixels."""
        return float(np.sqrt(self.area / np.pi))

    @cached_property
    def centre(self) -> tuple[int, int]:
        """Pixel index x, y of the point farthest from its border."""
        depth = ndimage.distance_transform_edt(np.pad(self.mask, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
        return self.left + int(column), self.top + int(row)

    def overlap(self, other: Proposal) -> float:
        """Intersection over union with another."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = np.minimum(self.box[2:], other.box[2:])
        if left >= right or top >= bottom:
            return 0.0
        parts = (
            item.mask[top - item.top : bottom - item.top, left - item.left : right - item.left]
            for item in (self, other)
        )
        common = int(np.logical_and(*parts).sum())
        return common / (self.area + other.area - common)


@dataclass(frozen=True, eq=False)
class Stain:
    """Stain of a picture.

    Attributes:
        amount: float32 (H, W), nuclear stain from 0 (ground) to 1 (nuclei), as they are in each part.
        density: float32 (H, W, 3), optical density of red, green and blue.
        is_glass: bool (H, W), whether nothing is there; false everywhere where nuclei are bright on dark.
        is_coloured: Whether it has colours.
        is_fluorescent: Whether nuclei are bright on dark.
    """

    amount: NDArray[np.float32]
    density: NDArray[np.float32]
    is_glass: NDArray[np.bool_]
    is_coloured: bool
    is_fluorescent: bool


@dataclass(frozen=True, eq=False)
class Proposals:
    """Candidates for nuclei in a picture.

    Attributes:
        found: Candidates, the best first; some overlap.
        stain: Stain of the picture.
    """

    found: list[Proposal]
    stain: Stain


@dataclass(frozen=True, eq=False)
class Detections:
    """Pieces of stain of about one radius.

    Attributes:
        labels: int (H, W), numbers from 1 on; 0 elsewhere.
        measurements: (N, 9), one row for each, columns as in ``WEIGHTS``.
    """

    labels: NDArray[np.int_]
    measurements: NDArray[np.float64]

    def proposals(self, weights: tuple[float, ...]) -> Iterator[Proposal]:
        """Those that may be nuclei by one of the ``WEIGHTS``."""
        scores = expit(self.measurements @ weights)
        for number, (rows, columns) in enumerate(ndimage.find_objects(self.labels)):
            if scores[number] >= _LEAST_SCORE:
                mask = self.labels[rows, columns] == number + 1
                yield Proposal(rows.start, columns.start, mask, float(scores[number]))


def propose_nuclei(pixels: NDArray[np.uint8], radius_range: tuple[float, float] = RADIUS_RANGE) -> Proposals:
    """Finds candidates for nuclei, bright on dark (fluorescence) or stained on bright.

    Args:
        pixels: uint8 (H, W, 3).
        radius_range: Limits of the radius in pixels of the nuclei that are looked for.

    Raises:
        Cancelled: The client has gone.
    """
    stain = stain_of(pixels)
    weights = WEIGHTS[stain.is_coloured]
    candidates = [item for one in detections(stain, radius_range) for item in one.proposals(weights)]
    return Proposals(_distinct(candidates), stain)


def detections(stain: Stain, radius_range: tuple[float, float] = RADIUS_RANGE) -> Iterator[Detections]:
    """Pieces of stain, by the radius in pixels that is looked for."""
    low, high = radius_range
    steps = max(1, round(np.log(high / low) / np.log(_RATIO)))
    for radius in np.geomspace(low, high, steps + 1):
        raise_if_cancelled()
        labels = _detect(stain.amount, float(radius), stain.is_fluorescent)
        yield Detections(labels, _measured(labels, stain, float(radius)))


def stain_of(pixels: NDArray[np.uint8]) -> Stain:
    """Stain of a picture, uint8 (H, W, 3)."""
    levels = pixels.astype(np.float32)
    light = levels.max(axis=2)
    colour = float((light - levels.min(axis=2)).mean())
    low, middle, high = np.percentile(light, (0.5, 50, 99.5))
    is_coloured = colour >= _COLOURLESS
    is_fluorescent = bool(middle < _DARK_GROUND or (not is_coloured and middle - low < high - middle))
    density = -np.log(np.maximum(levels, 1.0) / 255.0)
    if is_fluorescent:
        return Stain(_normalized(light, _LEAST_LIGHT), density, np.zeros(light.shape, bool), False, True)
    is_glass = density.mean(axis=2) < _GLASS
    amount = _RED * density[..., 0] + _BLUE * density[..., 2] if is_coloured else density.mean(axis=2)
    return Stain(_normalized(amount, _LEAST_DENSITY), density, is_glass, is_coloured, False)


def _normalized(amount: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    """The amount between two percentiles of its surroundings."""
    low, high = _in_windows(amount, lambda part: np.percentile(part, _PERCENTILES))
    return np.clip((amount - low) / np.maximum(high - low, least), 0, 1).astype(np.float32)


def _in_windows(
    values: NDArray[np.float32], statistic: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> Iterator[NDArray[np.float32]]:
    """Numbers that describe windows of a picture, each as a map (H, W) that passes from window to window."""
    starts = [
        np.unique(np.linspace(0, max(0, side - _WINDOW), max(1, round(2 * side / _WINDOW) - 1)).astype(int))
        for side in values.shape
    ]
    found = np.array(
        [[statistic(values[y : y + _WINDOW : 2, x : x + _WINDOW : 2]) for x in starts[1]] for y in starts[0]]
    )
    rows, columns = (
        _hats(np.interp(np.arange(side), first + _WINDOW / 2, np.arange(len(first))), len(first))
        for side, first in zip(values.shape, starts, strict=True)
    )
    for index in range(found.shape[2]):
        yield rows @ found[..., index].astype(np.float32) @ columns.T


def _hats(places: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """Weights (N, M) of the values at 0, 1, ... where a value between two of them is interpolated."""
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(count))).astype(np.float32)


def _otsu(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Otsu's threshold (1,); above all values where they are the same."""
    return np.array([threshold_otsu(values) if np.ptp(values) > 0 else 2.0])


def surroundings(ring: NDArray[np.bool_], is_glass: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a ring that a nucleus is compared with, both bool (H, W): its tissue where it has some."""
    tissue = ring & ~is_glass
    return tissue if tissue.sum() > _LEAST_TISSUE * ring.sum() else ring


def fill(mask: NDArray[np.bool_]) -> float:
    """Area of a mask, bool (H, W), in that of the ellipse with its moments, 0.3 to 1."""
    return float(_shapes(mask.astype(int), 2)[1][1])


def _distinct(candidates: list[Proposal]) -> list[Proposal]:
    """The candidates, best first, without those that nearly are a better one."""
    ordered = sorted(candidates, key=lambda item: -item.score)
    boxes = np.array([item.box for item in ordered]).reshape(-1, 4)
    kept: list[int] = []
    for number, item in enumerate(ordered):
        others = boxes[kept]
        near = (others[:, :2] < boxes[number, 2:]).all(axis=1) & (others[:, 2:] > boxes[number, :2]).all(
            axis=1
        )
        if all(item.overlap(ordered[kept[index]]) <= _SAME for index in np.flatnonzero(near)):
            kept.append(number)
    return [ordered[number] for number in kept]


def _measured(labels: NDArray[np.int_], stain: Stain, radius: float) -> NDArray[np.float64]:
    """Measurements (N, 9) of numbered pieces, as ``WEIGHTS`` names them."""
    count = int(labels.max()) + 1
    areas, fill, roundness = _shapes(labels, count)
    around = np.where(labels, 0, expand_labels(labels, max(2, round(radius / 2)))).ravel()
    tissue = np.bincount(around, ~stain.is_glass.ravel(), count)
    is_tissue = tissue > _LEAST_TISSUE * np.bincount(around, minlength=count)
    around[stain.is_glass.ravel() & is_tissue[around]] = 0
    many = np.maximum(np.bincount(around, minlength=count), 1)
    inside, outside = np.empty((3, count)), np.empty((3, count))
    for row, values in enumerate((stain.amount, stain.density[..., 0], stain.density[..., 2])):
        inside[row] = np.bincount(labels.ravel(), values.ravel(), count) / areas
        outside[row] = np.bincount(around, values.ravel(), count) / many
    ones = np.ones(count)
    columns = (
        ones,
        np.log(fill),
        inside[0] - outside[0],
        inside[0],
        roundness,
        np.log(areas / (np.pi * radius**2)),
        ones * np.log(radius),
        *(inside - outside)[1:],
    )
    return np.column_stack(columns)[1:]


def _shapes(
    labels: NDArray[np.int_], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each number from 0 on: area, its share in the ellipse with its moments, shorter over longer axis."""
    place = np.flatnonzero(labels)
    number = labels.ravel()[place]
    areas = np.maximum(np.bincount(number, minlength=count), 1).astype(float)
    y, x = (
        axis - (np.bincount(number, axis, count) / areas)[number]
        for axis in np.divmod(place, labels.shape[1])
    )
    # A pixel is a square: its own moment is 1/12.
    moments = (x * x + 1 / 12, y * y + 1 / 12, x * y)
    xx, yy, xy = (np.bincount(number, moment, count) / areas for moment in moments)
    middle, apart = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    longer, shorter = np.sqrt(np.maximum(middle + apart, 1e-6)), np.sqrt(np.maximum(middle - apart, 1e-6))
    return areas, np.clip(areas / (4 * np.pi * longer * shorter), 0.3, 1), shorter / longer


def _detect(stain: NDArray[np.float32], radius: float, is_fluorescent: bool) -> NDArray[np.int_]:
    """Numbered candidates of at least a share of a radius's area, int (H, W)."""
    smooth = ndimage.gaussian_filter(stain, max(0.7, radius * _SMOOTHING))
    if np.ptp(smooth) == 0:
        return np.zeros(stain.shape, int)
    mean = ndimage.uniform_filter(smooth, int(2 * _NEIGHBOURHOOD * radius) + 1)
    local = mean * _OF_MEAN if is_fluorescent else mean + _ABOVE_MEAN
    (otsu,) = _in_windows(smooth, _otsu)
    mask = (smooth > _OF_OTSU * otsu) & (smooth > local)
    mask = ndimage.binary_opening(mask, disk(max(1, round(radius * _OPENING))))
    mask = _filled(mask, np.pi * radius**2)
    if not mask.any():
        return np.zeros(stain.shape, int)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), max(1.0, radius * 0.2)) / radius
    bright = ndimage.gaussian_filter(stain, max(1.0, radius * 0.4)) / smooth[mask].mean()
    height = depth + _STAIN_WEIGHT * bright
    pieces, _ = ndimage.label(mask)
    distance = max(2, round(radius * _APART))
    peaks = _peaks(height, pieces, distance)
    seeds = np.zeros(stain.shape, int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-height, seeds, mask=mask)
    is_kept = np.bincount(labels.ravel()) >= max(15.0, _LEAST_AREA * np.pi * radius**2)
    is_kept[0] = False
    return np.asarray((np.cumsum(is_kept) * is_kept)[labels])


def _peaks(height: NDArray[np.float64], pieces: NDArray[np.int_], distance: int) -> NDArray[np.int_]:
    """Rows and columns (N, 2) of the maxima of each numbered piece that are so many pixels apart."""
    # Of equal neighbours the last is the maximum.
    height = height + np.linspace(0, 1e-9, height.size).reshape(height.shape)
    found = [np.zeros((0, 2), int)]
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        values = np.where(pieces[box] == number, height[box], -np.inf)
        highest = ndimage.maximum_filter(values, 2 * distance + 1, mode="constant", cval=-np.inf)
        is_peak = (values == highest) & np.isfinite(values)
        found.append(np.argwhere(is_peak) + [side.start for side in box])
    return np.concatenate(found)


def _filled(mask: NDArray[np.bool_], largest: float) -> NDArray[np.bool_]:
    """A mask without its small holes; larger ones are ground that nuclei surround."""
    holes, _ = ndimage.label(~mask)
    is_small = np.bincount(holes.ravel()) <= largest
    is_small[0] = False
    return mask | is_small[holes]
