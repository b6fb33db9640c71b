"""The surface of a mask as small elements, each with a place and an area."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.metrics.masks import Mask

# The triangles of marching cubes in the 2x2x2 voxels around a corner: which voxels are inside (bit 7 is voxel
# [0, 0, 0], bit 0 is [1, 1, 1]), and of each triangle the area seen along each axis, in eighths of a face.
# All other of the 256 cases are these turned, mirrored, or with inside and outside exchanged. The numbers are
# those of DeepMind's surface-distance (`_NEIGHBOUR_CODE_TO_NORMALS`), with which the tests compare all 256.
_EIGHTHS = 1 / 8
_TRIANGLES = {
    0b00000001: ((1, 1, 1),),
    0b00000011: ((2, 2, 0), (2, 2, 0)),
    0b00000110: ((1, 1, 1), (1, 1, 1)),
    0b00000111: ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00001111: ((4, 0, 0), (4, 0, 0)),
    0b00010110: ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    0b00010111: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
    0b00011000: ((1, 1, 1), (1, 1, 1)),
    0b00011001: ((0, 2, 2), (0, 2, 2), (1, 1, 1)),
    0b00011011: ((0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3)),
    0b00011110: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00111100: ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0)),
    0b01101001: ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
}


@dataclass(frozen=True, eq=False)
class Elements:
    """The surface of a mask (2-D: its contour), by its definition in Nikolov et al. 2018, arXiv 1809.04430.

    An element lies at each corner where voxels (pixels) of both kinds meet; outside the array is background.

    Attributes:
        corners: ``(N, axes)`` integers in the mask's axis order; corner ``c`` lies half a voxel before the
            centre of voxel ``c``, so the corners of an array of n voxels run from 0 to n.
        areas: ``(N,)`` mm2 (2-D: lengths in mm).
    """

    corners: NDArray[np.int64]
    areas: NDArray[np.float64]


def surface_elements(mask: Mask, spacing: Sequence[float]) -> Elements:
    """Finds the elements of a mask's surface.

    Args:
        mask: 2-D or 3-D bool.
        spacing: mm per axis.

    Raises:
        ValueError: the mask is neither 2-D nor 3-D, or the spacing is not a positive number for each axis.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(f"a mask of {mask.ndim} axes has no surface here: give a 2-D or a 3-D one")
    if len(spacing) != mask.ndim or not all(np.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(
            f"the spacing {tuple(spacing)} is not one positive number for each of {mask.ndim} axes"
        )
    box = _bounding_box(mask)
    if box is None:
        return Elements(np.zeros((0, mask.ndim), np.int64), np.zeros(0))
    codes = _codes(mask[box])
    flat = np.flatnonzero((codes != 0) & (codes != 2 ** (2**mask.ndim) - 1))
    corners = np.stack(np.unravel_index(flat, codes.shape), axis=1) + [side.start for side in box]
    table = _areas(spacing) if mask.ndim == 3 else _lengths(spacing)
    return Elements(corners, table[codes.ravel()[flat]])


def _bounding_box(mask: Mask) -> tuple[slice, ...] | None:
    """Smallest box around the object; None where there is none."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if not used.size:
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _codes(mask: Mask) -> NDArray[np.uint8]:
    """For each corner one bit for each voxel around it; one longer than the mask along each axis."""
    padded = np.pad(mask, 1).view(np.uint8)
    lengths = [length + 1 for length in mask.shape]
    codes = np.zeros(lengths, np.uint8)
    for offset in itertools.product((0, 1), repeat=mask.ndim):
        window = tuple(slice(start, start + length) for start, length in zip(offset, lengths, strict=True))
        codes <<= 1
        codes |= padded[window]
    return codes


def _areas(spacing: Sequence[float]) -> NDArray[np.float64]:
    """Area in mm2 for each of the 256 codes of a 3-D corner."""
    x, y, z = spacing
    faces = np.asarray([y * z, x * z, x * y])
    table = np.zeros(256)
    for code, triangles in _TRIANGLES.items():
        voxels = ((code >> np.arange(7, -1, -1)) & 1).reshape(2, 2, 2)
        for axes in itertools.permutations(range(3)):
            seen = np.asarray(triangles)[:, axes] * _EIGHTHS * faces
            area = np.linalg.norm(seen, axis=1).sum()
            for mirrored in itertools.product((slice(None), slice(None, None, -1)), repeat=3):
                turned = voxels.transpose(axes)[mirrored]
                other = int("".join(map(str, turned.ravel())), 2)
                table[other] = table[255 - other] = area
    return table


def _lengths(spacing: Sequence[float]) -> NDArray[np.float64]:
    """Length in mm for each of the 16 codes of a 2-D corner: half a diagonal, two of them, or a side."""
    table = np.full(16, 0.5 * float(np.linalg.norm(spacing)))
    table[[0b0000, 0b1111]] = 0.0
    table[[0b0110, 0b1001]] *= 2
    table[[0b0101, 0b1010]] = spacing[0]
    table[[0b0011, 0b1100]] = spacing[1]
    return table
