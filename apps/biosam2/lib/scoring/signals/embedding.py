"""One vector for a frame or an image, for measures of similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.engine.network import Features

Vector = NDArray[np.float32]


def frame_vector(features: Features) -> Vector:
    """Spatial mean of the last feature map of one frame, L2-normalised: (C,)."""
    return unit(features.maps[-1][0].float().mean(dim=(1, 2)).cpu().numpy())


def mean_vector(vectors: Sequence[Vector]) -> Vector:
    """Mean of at least one vector, L2-normalised: (C,)."""
    return unit(np.mean(vectors, axis=0))


def unit(vector: NDArray) -> Vector:
    """The vector scaled to length 1; a zero vector stays as it is."""
    length = float(np.linalg.norm(vector))
    scaled: Vector = np.asarray(vector / length if length else vector, dtype=np.float32)
    return scaled
