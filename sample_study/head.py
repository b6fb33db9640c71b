"""A synthetic FLAIR MR of a head with a bright lesion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sample_study.case import Case
from sample_study.shapes import Mask, Space, smooth_field

SHAPE = (128, 128, 40)
SPACING = (1.8, 1.8, 4.0)  # mm

LABELS = {"lesion": 1, "ventricles": 2, "brain": 3}

# MR intensities have no unit; only their order matters.
SCALP, SKULL, FLUID, GREY, WHITE, VENTRICLES, LESION = 430.0, 50.0, 110.0, 400.0, 310.0, 90.0, 760.0
BIAS = 0.12  # relative variation of the coil's sensitivity
NOISE = 14.0
BLUR_VOXELS = (0.6, 0.6, 0.25)


def head(rng: np.random.Generator) -> Case:
    """Draws the head in RAS+ orientation: the axes run to the right, anterior and superior."""
    space = Space.bent(SHAPE, SPACING, bend=1.8, scale=16.0, rng=rng)
    brain = space.ellipsoid((0, 0, 4), (66, 82, 62))
    ventricles = _ventricles(space)
    lesion = space.ellipsoid((-34, 22, 14), (15, 19, 17), turn=30) | space.ellipsoid(
        (-27, 10, 10), (10, 9, 11)
    )
    truth = np.zeros(SHAPE, np.uint8)
    for name, mask in (("brain", brain), ("ventricles", ventricles & brain), ("lesion", lesion & brain)):
        truth[mask] = LABELS[name]
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = [-step * (n - 1) / 2 for step, n in zip(SPACING, SHAPE, strict=True)]
    return Case("head_mr", _signal(space, truth, rng), truth, LABELS, affine)


def _ventricles(space: Space) -> Mask:
    """Two horns that part towards the back."""
    horns = [space.ellipsoid((side * 12, 4, 12), (7, 32, 17), turn=side * 14) for side in (-1, 1)]
    return horns[0] | horns[1]


def _signal(space: Space, truth: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.int16]:
    """The signal: scalp, skull, fluid, folded grey matter around white matter, and the structures."""
    image = np.zeros(truth.shape)
    for radii, value in (((86, 102, 80), SCALP), ((79, 95, 74), SKULL), ((71, 87, 67), FLUID)):
        image[space.ellipsoid((0, 0, 4), radii)] = value
    brain = truth > 0
    white = space.ellipsoid((0, 0, 4), (54, 70, 52)) | (smooth_field(truth.shape, (2.5, 2.5, 1.2), rng) > 0.5)
    image[brain] = np.where(white, WHITE, GREY)[brain]
    image[truth == LABELS["ventricles"]] = VENTRICLES
    image[truth == LABELS["lesion"]] = LESION
    image = gaussian_filter(image, BLUR_VOXELS) * (1 + BIAS * smooth_field(truth.shape, (30, 30, 12), rng))
    real, imaginary = NOISE * rng.standard_normal((2, *truth.shape))
    return np.rint(np.hypot(image + real, imaginary)).astype(np.int16)
