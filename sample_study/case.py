"""One image of the study, with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """An image and what is on it.

    Attributes:
        name: the image's id in MONAI Label's datastore.
        image: ``(I, J, K)`` int16 for a volume; ``(W, H, 3)`` uint8, indexed ``[x, y]``, for a picture.
        truth: uint8 of the image's first axes; 0 where there is nothing to segment.
        labels: what each value of ``truth`` is called.
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
        """Where the named structure is."""
        return self.truth == self.labels[label]
