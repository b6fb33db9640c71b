"""Axes of a volume: axes in a slice, directions in the patient, spacing, millimetres to slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CODES = (("L", "R"), ("P", "A"), ("I", "S"))


def in_plane_axes(axis: int) -> tuple[int, int]:
    """Voxel axes that lie in a slice across ``axis``, ascending: the frame's x, then its y.

    Raises:
        ValueError: The axis is not 0, 1 or 2.
    """
    if axis not in (0, 1, 2):
        raise ValueError(f"slice axis {axis!r} must be 0, 1 or 2")
    first, second = (other for other in range(3) if other != axis)
    return first, second


def spacing(affine: NDArray) -> tuple[float, float, float]:
    """Millimetres between voxel centres along i, j and k.

    Args:
        affine: (4, 4), voxel index to millimetres.
    """
    i, j, k = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    return float(i), float(j), float(k)


def world_axes(affine: NDArray) -> tuple[int, int, int]:
    """Patient axis (0 left-right, 1 front-back, 2 foot-head) that i, j and k each run along the most.

    Each is used once; in an oblique volume the best fitting pair is chosen first.

    Args:
        affine: (4, 4), voxel index to RAS millimetres.
    """
    cosines = np.abs(np.asarray(affine, dtype=float)[:3, :3]) / np.array(spacing(affine))
    found = [0, 0, 0]
    for _ in range(3):
        world, voxel = np.unravel_index(int(np.argmax(cosines)), cosines.shape)
        found[voxel] = int(world)
        cosines[world, :] = -1.0
        cosines[:, voxel] = -1.0
    return found[0], found[1], found[2]


def axis_codes(affine: NDArray) -> tuple[str, str, str]:
    """Letters of the side that i, j and k grow towards, such as ``("L", "P", "S")``.

    Args:
        affine: (4, 4), voxel index to RAS millimetres.
    """
    worlds = world_axes(affine)
    i, j, k = (_CODES[world][int(affine[world][voxel] > 0)] for voxel, world in enumerate(worlds))
    return i, j, k


def slice_index_from_offset(offset_mm: float, affine: NDArray, axis: int, n: int) -> int:
    """Slice of a viewer's slice offset in millimetres.

    3D Slicer sends ``round(abs(offset))`` with the sign lost, so both signs are tried: the one inside the
    volume wins, the positive one where both are, and the nearest slice where none is. Tilt is left out: the
    offset is taken along the patient axis that the slices are stacked along, from the volume's first voxel.

    Args:
        offset_mm: Distance from the patient origin, millimetres.
        affine: (4, 4), voxel index to RAS millimetres.
        axis: Slice axis.
        n: Number of slices.

    Returns:
        Index from 0 to n - 1.
    """
    world = world_axes(affine)[axis]
    origin, step = float(affine[world][3]), float(affine[world][axis])
    candidates = [(sign * abs(offset_mm) - origin) / step for sign in (1.0, -1.0)]
    inside = [index for index in candidates if -0.5 <= index < n - 0.5]
    nearest = inside[0] if inside else min(candidates, key=lambda index: abs(index - (n - 1) / 2))
    return int(np.clip(np.rint(nearest), 0, n - 1))
