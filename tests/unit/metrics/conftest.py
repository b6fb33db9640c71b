"""Masks that are not shapes with a name, for the metrics' tests."""

import numpy as np
from scipy import ndimage


def pair(seed, shape, differing=0.6):
    """Two blobs that agree more or less."""
    rng = np.random.default_rng(seed)
    common = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    blobs = []
    for _ in range(2):
        own = ndimage.gaussian_filter(rng.normal(size=shape), 3)
        mixed = common + differing * own
        blobs.append(mixed > np.quantile(mixed, 0.8))
    return blobs


def cube(shape, low, high):
    """A mask of the box of voxels from low to high."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))] = True
    return mask
