"""The oblique view that prompts are drawn on: a volume on its grid, and labels back on the volume."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from lib.errors import PromptError
from lib.prompts.fields import sequence, shown, vector, whole
from lib.transforms.frames import frame_view

# A view has at most this many times the voxels of its volume, or one slice of a large screen.
MOST_OF_VOLUME = 8
MOST_OF_SLICE = 1 << 22
# Steps of a view are this far from lying in one plane at least (ratio of its singular values).
MOST_SKEWED = 1e4
# Voxels; a place further outside than any viewer shows.
FARTHEST = 1e6
_VIEW = '{"origin": [i, j, k], "axes": [[i, j, k], [i, j, k], [i, j, k]], "size": [columns, rows, slices]}'


@dataclass(frozen=True, eq=False)
class ViewGrid:
    """Grid of an oblique view of a volume.

    Attributes:
        matrix: (4, 4) float64, voxel index of the view to voxel index of the volume; invertible.
        shape: Voxels of the view (I, J, K).
    """

    matrix: NDArray[np.float64]
    shape: tuple[int, int, int]

    def digest(self, of: str) -> str:
        """Digest of a volume's view, made of the volume's digest."""
        return hashlib.sha256(f"{of} {self.matrix.tolist()} {self.shape}".encode()).hexdigest()

    def image(self, array: NDArray) -> NDArray:
        """Intensities of a volume on the view, linear; the volume's lowest one outside."""
        array = np.asarray(array)  # a video's frames are decoded now
        return _resampled(array, self.matrix, self.shape, 1, array.min())

    def labels(self, array: NDArray) -> NDArray:
        """Labels of a volume on the view, from the nearest voxel; 0 outside."""
        return _resampled(array, self.matrix, self.shape, 0)

    def volume(self, labels: NDArray, shape: tuple[int, int, int]) -> NDArray:
        """Labels of the view on the volume's grid of this shape, from the nearest voxel; 0 outside.

        Raises:
            PromptError: No voxel has any of the labels: they are beside the volume or between its voxels.
        """
        found = _resampled(labels, np.linalg.inv(self.matrix), shape, 0)
        if labels.any() and not found.any():
            raise PromptError(
                "The mask on the view holds no voxel of the image: click inside the image, and make the "
                "third of view.axes as long as the distance of its voxels."
            )
        return found

    def slice_voxels(self, axis: int, index: int, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """The voxels of a volume of this shape that one slice of the view cuts."""
        slab = np.zeros(self.shape, np.uint8)
        frame_view(slab, axis, index)[:] = 1
        return _resampled(slab, np.linalg.inv(self.matrix), shape, 0) > 0


def read_view(request: Mapping[str, Any], shape: tuple[int, ...]) -> ViewGrid | None:
    """The request's ``view``, on whose grid its prompts are; None: they are on the image's own.

    Args:
        request: ``view`` with the ``origin`` of the view's first voxel and a step of one voxel along each of
            its ``axes``, as continuous voxel indices of the image, and its ``size`` in voxels.
        shape: Voxels (I, J, K) of the image, and its channels where it has colours.

    Raises:
        PromptError: It is no such grid, or too large.
    """
    view = request.get("view")
    if view is None:
        return None
    if len(shape) != 3:
        raise PromptError("view is for volumes of grey voxels, and the image has colours; leave view out.")
    if not isinstance(view, Mapping):
        raise PromptError(f"view is {shown(view)}; expected {_VIEW}.")
    axes = sequence(view.get("axes"), "view.axes", _VIEW)
    columns = [vector(axis, f"view.axes[{place}]", (3,), _VIEW) for place, axis in enumerate(axes)]
    if len(columns) != 3:
        raise PromptError(f"view.axes has {len(columns)} entries; expected 3.")
    columns.append(vector(view.get("origin"), "view.origin", (3,), _VIEW))
    matrix = np.vstack([np.transpose(columns), [0, 0, 0, 1]])
    if np.abs(matrix).max() > FARTHEST or not np.linalg.cond(matrix[:3, :3]) < MOST_SKEWED:
        raise PromptError(
            f"view has the axes {shown(columns[:3])} and the origin {shown(columns[3])}; the axes must not "
            f"lie in one plane, and no number may be above {FARTHEST:g}."
        )
    width, height, depth = (
        whole(side, "view.size") for side in vector(view.get("size"), "view.size", (3,), _VIEW)
    )
    limit = max(MOST_OF_VOLUME * math.prod(shape), MOST_OF_SLICE)
    if min(width, height, depth) < 1 or width * height * depth > limit:
        raise PromptError(
            f"view.size is {[width, height, depth]}; each side must be 1 at least, and "
            f"their product at most {limit}."
        )
    return ViewGrid(matrix, (width, height, depth))


def _resampled(
    array: NDArray, matrix: NDArray, shape: tuple[int, int, int], order: int, outside: float = 0
) -> NDArray:
    out = np.empty(shape, array.dtype, order="F")
    affine_transform(
        array, matrix, output_shape=shape, output=out, order=order, mode="grid-constant", cval=outside
    )
    return out
