"""One image of the study with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """An image with its ground truth.

    Attributes:
        name: Image id in MONAI Label's datastore.
        image: ``(I, J, K)`` int16 for a volume; ``(W, H, 3)`` uint8, indexed ``[x, y]``, for a picture.
        truth: Label map, uint8 with the image's spatial axes; 0 is background.
        labels: Value in ``truth`` by name.
        affine: ``(4, 4)``, voxel index to RAS+ millimetres; None for a picture.
    """

    name: str
    image: NDArray[np.generic]
    truth: NDArray[np.uint8]
    labels: dict[str, int]
    affine: NDArray[np.float64] | None = None

    @property
    def is_volume(self) -> bool:
        """Whether the image has a slice axis."""
        return self.affine is not None

    def mask(self, label: str) -> NDArray[np.bool_]:
        """Mask of a structure."""
        return self.truth == self.labels[label]
