"""Synthetic CT-like volumes for the speed benchmarks."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

_AIR_HU, _TISSUE_HU, _ORGAN_HU = -1000.0, 40.0, 120.0
_NOISE_HU = 15.0


def ct_like_volume(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """A body ellipse with one bright organ and noise.

    Args:
        shape: Voxels along [i, j, k].
        seed: Seed; volumes with different seeds differ in every slice.

    Returns:
        int16 Hounsfield units, axes [i, j, k].
    """
    rng = np.random.default_rng(seed)
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    volume = np.full(shape, _AIR_HU, dtype=np.float32)
    volume[np.broadcast_to((i / 0.85) ** 2 + (j / 0.7) ** 2 < 1, shape)] = _TISSUE_HU
    volume[np.broadcast_to(((i - 0.2) / 0.3) ** 2 + (j / 0.25) ** 2 + (k / 1.4) ** 2 < 1, shape)] = _ORGAN_HU
    volume += ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 0.7) * _NOISE_HU * 3
    return np.rint(volume).astype(np.int16)


def write_volumes(folder: Path, shape: tuple[int, int, int], count: int, *, first_seed: int = 0) -> list[str]:
    """Writes ``count`` volumes ``bench_<seed>.nii.gz``. Returns their names without extension."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for seed in range(first_seed, first_seed + count):
        names.append(f"bench_{seed:03d}")
        image = nibabel.Nifti1Image(ct_like_volume(shape, seed), np.diag([0.9, 0.9, 2.5, 1.0]))
        nibabel.save(image, folder / f"{names[-1]}.nii.gz")
    return names
