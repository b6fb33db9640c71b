"""Masks of shapes with irregular outlines."""

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
    """A smooth random field (Gaussian, ``sigma`` voxels) with mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.standard_normal(tuple(shape)), sigma, mode="nearest")
    return (field - field.mean()) / field.std()


@dataclass(frozen=True)
class Space:
    """Coordinates in millimetres around the grid's centre, slightly deformed.

    The deformation makes outlines irregular. All shapes of one space share it, so neighbours stay neighbours.

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
        """A space with voxels of ``spacing`` mm, deformed by about ``bend`` mm over ``scale`` mm."""
        axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
        sigma = [scale / step for step in spacing]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"))
        return cls(grid + bend * np.stack([smooth_field(shape, sigma, rng) for _ in axes]))

    def ellipsoid(self, centre: Sequence[float], radii: Sequence[float], turn: float = 0.0) -> Mask:
        """An ellipsoid.

        Args:
            centre: Millimetres from the grid's centre.
            radii: Half axes in millimetres.
            turn: Rotation around the third axis in degrees, from the first axis towards the second.
        """
        first, second, third = (axis - middle for axis, middle in zip(self.coordinates, centre, strict=True))
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        along, across = cos * first + sin * second, cos * second - sin * first
        return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 + (third / radii[2]) ** 2 <= 1.0


def star_convex(
    shape: Sequence[int], centre: Sequence[float], radius: float, roughness: float, rng: np.random.Generator
) -> Mask:
    """A star-convex, cell-like mask.

    Args:
        shape: Size ``(W, H)``.
        centre: Centre ``(x, y)`` in pixels.
        radius: Mean radius in pixels.
        roughness: Deviation of the outline from a circle as a fraction of the radius.
        rng: Random generator of the outline.
    """
    x, y = np.meshgrid(
        *(np.arange(n) - middle for n, middle in zip(shape, centre, strict=True)), indexing="ij"
    )
    angle = np.arctan2(y, x)
    outline = np.ones_like(angle)
    for harmonic in (2, 3, 4):
        outline += roughness / harmonic * rng.normal() * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(x, y) <= radius * outline
