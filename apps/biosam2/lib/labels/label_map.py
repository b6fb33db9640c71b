"""Labels: as they lie in a file, and on the grid of the image that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib.images.medical_image import MedicalImage


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Label of one image, on its grid.

    Attributes:
        array: uint8 or uint16 (I, J, K) on the image's own grid, read-only, first axis fastest in memory;
            0 is background and each other value is one object.
        names: Class name of every value that is present; objects of one class share it. Empty if nothing is
            drawn, as in a label saved to state that nothing was found.
    """

    array: NDArray
    names: dict[int, str]


# Voxels of a label file that are opened whatever the size of its image, which may be cut out of a larger one:
# 512 x 512 x 1024.
_ROOM = 1 << 28


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Labels as they lie in their file.

    Attributes:
        array: (I, J, K) of any number type, 0 for background.
        affine: (4, 4), voxel index to RAS millimetres; None if the file has no geometry.
        names: Class names in the file by value; empty if there are none.
        has_instances: True if objects of one class have values of their own.
    """

    array: NDArray
    affine: NDArray[np.float64] | None
    names: dict[int, str] = field(default_factory=dict)
    has_instances: bool = False


def most_voxels(image: MedicalImage) -> int:
    """Limit of voxels of an image's label file: 3D Slicer can draw on a finer grid than the image's."""
    return max(_ROOM, 8 * image.shape[0] * image.shape[1] * image.shape[2])
