"""What a reader found in a label file, before it is brought onto its image's grid."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Labels as they lie in their file.

    Attributes:
        array: (I, J, K) of any number type, 0 for background.
        affine: (4, 4), voxel index to RAS millimetres; None where the file says nothing of its geometry.
        names: class names that the file itself gives to its values; empty where it gives none.
        is_named_by_object: whether the file names each of its objects, so that other lists of names, which
            know classes only by number, have nothing to add.
    """

    array: NDArray
    affine: NDArray[np.float64] | None
    names: dict[int, str] = field(default_factory=dict)
    is_named_by_object: bool = False
