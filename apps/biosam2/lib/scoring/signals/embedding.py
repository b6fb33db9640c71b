"""One vector for a frame or an image, to tell which are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.engine.network import Features

Vector = NDArray[np.float32]


def frame_vector(features: Features) -> Vector:
    """The last map of a frame's embedding, mean over its cells, of length 1: (C,).

    Args:
        features: of one frame.
    """
    return unit(features.maps[-1][0].float().mean(dim=(1, 2)).cpu().numpy())


def mean_vector(vectors: Sequence[Vector]) -> Vector:
    """The mean of vectors, of length 1: (C,).

    Args:
        vectors: at least one.
    """
    return unit(np.mean(vectors, axis=0))


def unit(vector: NDArray) -> Vector:
    """A vector of length 1 in the same direction; one without a length stays as it is."""
    length = float(np.linalg.norm(vector))
    scaled: Vector = np.asarray(vector / length if length else vector, dtype=np.float32)
    return scaled
