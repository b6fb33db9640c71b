"""Small images with a known truth, made from numbers alone.

Arrays are indexed [i, j, k]; a 2-D image has one slice, [x, y, 0]. Every object lies off the diagonal of its
image, and no image is square, so that swapped axes show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Half a voxel of blur at the edges, as a scanner's partial volumes give; the truth stays where it was.
EDGE_BLUR = 0.6

# Dice from which on a mask is on the right object: far below what the bundled weights reach on objects as
# plain as these, and out of reach for a mask that is mirrored, transposed, shifted, or of another object.
FROM_BOX = 0.75
FROM_CLICK = 0.6
THROUGH_VOLUME = 0.5


@dataclass(frozen=True)
class Phantom:
    """An image and what is in it.

    Attributes:
        image: (I, J, K) or RGB (I, J, K, 3).
        affine: (4, 4), voxel index to RAS millimetres.
        objects: name to bool (I, J, K).
    """

    image: np.ndarray
    affine: np.ndarray
    objects: dict[str, np.ndarray]

    def middle(self, name: str, axis: int = 2) -> int:
        """The slice along ``axis`` on which the object is largest."""
        others = tuple(a for a in range(3) if a != axis)
        return int(np.argmax(self.objects[name].sum(axis=others)))

    def click(self, name: str, k: int | None = None) -> list[int]:
        """The voxel [i, j, k] deepest inside the object on slice ``k`` (its largest by default)."""
        k = self.middle(name) if k is None else k
        depth = ndimage.distance_transform_edt(np.pad(self.objects[name][:, :, k], 1))[1:-1, 1:-1]
        i, j = np.unravel_index(int(np.argmax(depth)), depth.shape)
        return [int(i), int(j), k]

    def box(self, name: str, k: int | None = None, margin: int = 1) -> list[int]:
        """[x0, y0, x1, y1], half-open, around the object on slice ``k`` with ``margin`` pixels to spare."""
        k = self.middle(name) if k is None else k
        return _bounds(self.objects[name][:, :, k], margin, order="corners")

    def roi(self, name: str, margin: int = 1) -> list[int]:
        """[i0, i1, j0, j1, k0, k1], half-open, around the whole object."""
        return _bounds(self.objects[name], margin, order="pairs")


def _bounds(mask: np.ndarray, margin: int, order: str) -> list[int]:
    where = np.nonzero(mask)
    lower = [max(0, int(axis.min()) - margin) for axis in where]
    upper = [min(size, int(axis.max()) + 1 + margin) for axis, size in zip(where, mask.shape, strict=True)]
    if order == "corners":
        return lower + upper
    return [value for pair in zip(lower, upper, strict=True) for value in pair]


def ellipsoid(
    shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...], power: float = 2.0
) -> np.ndarray:
    """Bool array of ``shape``: the voxels whose centre lies inside."""
    grid = np.indices(shape, dtype=np.float64)
    distance = sum((np.abs(grid[a] - centre[a]) / radii[a]) ** power for a in range(len(shape)))
    return np.asarray(distance <= 1.0)


def _paint(ground: np.ndarray, levels: list[tuple[np.ndarray, float]], noise: float, seed: int) -> np.ndarray:
    image = ground.astype(np.float64)
    for mask, level in levels:
        image[mask] = level
    image = ndimage.gaussian_filter(image, [EDGE_BLUR] * 2 + [0.0] * (image.ndim - 2))
    return image + np.random.default_rng(seed).normal(0.0, noise, image.shape)


def ct(shape: tuple[int, int, int] = (96, 80, 24)) -> Phantom:
    """CT-like: a body (40 HU) in air, a lesion (180 HU) and an organ (-110 HU, as fat is); LPS."""
    body = ellipsoid(shape, (48, 40, 12), (45, 37, 60))
    lesion = ellipsoid(shape, (72, 25, 9), (12, 9, 5.5))
    organ = ellipsoid(shape, (28, 52, 14), (13, 10, 6.5))
    image = _paint(np.full(shape, -1000.0), [(body, 40), (lesion, 180), (organ, -110)], noise=8, seed=1)
    affine = np.diag([-0.8, -0.9, 3.0, 1.0])
    affine[:3, 3] = [38.0, 36.0, -30.0]
    return Phantom(np.rint(image).astype(np.int16), affine, {"lesion": lesion, "organ": organ})


def lung() -> Phantom:
    """CT-like: a nodule (-450 HU) in lung (-850 HU), all of it below zero, beside bright soft tissue."""
    shape = (72, 60, 8)
    tissue = np.ones(shape, bool)
    air = ellipsoid(shape, (40, 28, 4), (28, 24, 30))
    nodule = ellipsoid(shape, (52, 20, 4), (8, 6, 3.5))
    image = _paint(np.zeros(shape), [(tissue, 50), (air, -850), (nodule, -450)], noise=15, seed=2)
    return Phantom(np.rint(image).astype(np.int16), np.diag([-1.0, -1.0, 4.0, 1.0]), {"nodule": nodule})


def mr() -> Phantom:
    """MR-like, every value above 255: a tumour (1900) in tissue (900); sagittal slices, oblique affine."""
    shape = (70, 88, 14)
    head = ellipsoid(shape, (35, 44, 7), (32, 40, 40))
    tumour = ellipsoid(shape, (22, 62, 6), (9, 11, 4.5))
    bias = 1.0 + 0.15 * np.indices(shape)[1] / shape[1]
    image = _paint(np.full(shape, 300.0), [(head, 900), (tumour, 1900)], noise=40, seed=3) * bias
    return Phantom(np.rint(np.clip(image, 256, None)).astype(np.uint16), _oblique(), {"tumour": tumour})


def _oblique() -> np.ndarray:
    """Slices along x (right), rows downwards, turned by 12 degrees about x and 7 about z."""
    a, b = np.deg2rad([12.0, 7.0])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    columns = np.array(
        [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], dtype=float
    )  # i: posterior, j: inferior, k: right
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ columns @ np.diag([1.0, 1.0, 3.5])
    affine[:3, 3] = [12.0, -40.0, 33.0]
    return affine


def rimmed(seed: int) -> Phantom:
    """Two bodies, a bright and a dark one, on other places for each seed: something to learn.

    Each lies in a rim of a middle grey that belongs to it. Who does not know that takes the core alone.
    """
    shape = (60, 48, 9)
    rng = np.random.default_rng(seed)
    shift = rng.integers(-4, 5, 2)
    places = [(40 + shift[0], 16 + shift[1], 4), (18 - shift[0], 32 - shift[1], 5)]
    image = 100 + rng.normal(0, 6, shape)
    objects = {}
    for (name, sign), place, depth in zip((("bright", 1), ("dark", -1)), places, (4.5, 3.5), strict=True):
        objects[name] = ellipsoid(shape, place, (13, 10, depth))
        image += sign * (25 * objects[name] + 70 * ellipsoid(shape, place, (6, 5, depth)))
    return Phantom(image.astype(np.float32), np.diag([1.0, 1.5, 3.0, 1.0]), objects)


def grey_picture(width: int = 104, height: int = 72, seed: int = 4) -> Phantom:
    """8-bit grey picture: one bright cell right of the middle, above it."""
    shape = (width, height, 1)
    cell = ellipsoid((width, height), (0.74 * width, 0.3 * height), (0.17 * width, 0.2 * height))[:, :, None]
    image = _paint(np.full(shape, 70.0), [(cell, 190)], noise=6, seed=seed)
    return Phantom(np.clip(np.rint(image), 0, 255).astype(np.uint8), np.eye(4), {"cell": cell})


def colour_picture() -> Phantom:
    """8-bit RGB picture: a purple nucleus and a pink one, as light as each other in grey."""
    width, height = 120, 88
    nucleus = ellipsoid((width, height), (88, 26), (14, 11))[:, :, None]
    other = ellipsoid((width, height), (30, 60), (12, 14))[:, :, None]
    rng = np.random.default_rng(5)
    image = np.empty((width, height, 1, 3))
    for channel, (ground, first, second) in enumerate([(228, 96, 215), (205, 52, 96), (220, 150, 140)]):
        flat = np.full((width, height, 1), float(ground))
        flat[nucleus] = first
        flat[other] = second
        image[..., channel] = ndimage.gaussian_filter(flat, [EDGE_BLUR, EDGE_BLUR, 0])
    image += rng.normal(0.0, 5.0, image.shape)
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Phantom(image, np.eye(4), {"nucleus": nucleus, "other": other})


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two masks of one shape; 1 when both are empty."""
    if mask.shape != truth.shape:
        raise ValueError(f"mask {mask.shape} and truth {truth.shape} are of different shapes")
    a, b = mask > 0, truth > 0
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total
