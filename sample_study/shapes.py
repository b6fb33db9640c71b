"""Shapes with soft, irregular outlines, as masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Mask = NDArray[np.bool_]


def smooth_field(
    shape: Sequence[int], sigma: Sequence[float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """A random field without detail below ``sigma`` voxels, of mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.standard_normal(tuple(shape)), sigma, mode="nearest")
    return (field - field.mean()) / field.std()


@dataclass(frozen=True)
class Space:
    """Where shapes are drawn: a grid of millimetres around the grid's centre, bent a little.

    The bend makes straight outlines organic. It is the same for all the shapes of one space, so neighbours
    stay neighbours.

    Attributes:
        coordinates: ``(3, I, J, K)``, millimetres along each voxel axis.
    """

    coordinates: NDArray[np.float64]

    @classmethod
    def bent(
        cls,
        shape: Sequence[int],
        spacing: Sequence[float],
        bend: float,
        scale: float,
        rng: np.random.Generator,
    ) -> Space:
        """A space of voxels of ``spacing`` mm, bent by about ``bend`` mm over distances of ``scale`` mm."""
        axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
        sigma = [scale / step for step in spacing]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"))
        return cls(grid + bend * np.stack([smooth_field(shape, sigma, rng) for _ in axes]))

    def ellipsoid(self, centre: Sequence[float], radii: Sequence[float], turn: float = 0.0) -> Mask:
        """An ellipsoid.

        Args:
            centre: millimetres from the grid's centre.
            radii: half axes in millimetres.
            turn: degrees around the third axis, from the first towards the second.
        """
        first, second, third = (axis - middle for axis, middle in zip(self.coordinates, centre, strict=True))
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        along, across = cos * first + sin * second, cos * second - sin * first
        return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 + (third / radii[2]) ** 2 <= 1.0


def star_convex(
    shape: Sequence[int], centre: Sequence[float], radius: float, roughness: float, rng: np.random.Generator
) -> Mask:
    """A cell-like patch: every point of it is seen from its centre.

    Args:
        shape: ``(W, H)``.
        centre: ``(x, y)`` in pixels.
        radius: mean radius in pixels.
        roughness: how far the outline strays from a circle, as a fraction of the radius.
        rng: source of the outline.
    """
    x, y = np.meshgrid(
        *(np.arange(n) - middle for n, middle in zip(shape, centre, strict=True)), indexing="ij"
    )
    angle = np.arctan2(y, x)
    outline = np.ones_like(angle)
    for harmonic in (2, 3, 4):
        outline += roughness / harmonic * rng.normal() * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(x, y) <= radius * outline
