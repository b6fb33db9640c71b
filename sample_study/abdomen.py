"""A synthetic contrast-enhanced abdominal CT."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sample_study.case import Case
from sample_study.shapes import Mask, Space, smooth_field

SHAPE = (128, 128, 48)
SPACING = (2.75, 2.75, 5.0)  # mm; slices thicker than pixels, as in clinical CT

LABELS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4, "spine": 5, "aorta": 6}

# Hounsfield units of the portal venous phase.
AIR, FAT, MUSCLE, GUT = -1000.0, -100.0, 55.0, 20.0
TISSUE = {
    "liver": 115.0,
    "right kidney": 190.0,
    "left kidney": 190.0,
    "spleen": 130.0,
    "spine": 380.0,
    "aorta": 170.0,
}

# Blur of a reconstruction kernel (half a pixel), and noise of a routine dose.
BLUR_VOXELS = (0.6, 0.6, 0.3)
NOISE_HU = 14.0
TEXTURE_HU = 5.0


def abdomen(rng: np.random.Generator) -> Case:
    """Draws the abdomen.

    The axes run to the patient's left, posterior and superior, as in most DICOM series; in radiological
    orientation the liver is on the left of the picture.
    """
    space = Space.bent(SHAPE, SPACING, bend=3.0, scale=28.0, rng=rng)
    truth = np.zeros(SHAPE, np.uint8)
    for name, mask in _organs(space).items():
        truth[mask & (truth == 0)] = LABELS[name]
    left, back, up = SPACING
    affine = np.diag([-left, -back, up, 1.0])
    affine[:3, 3] = [left * (SHAPE[0] - 1) / 2, back * (SHAPE[1] - 1) / 2, 0.0]
    return Case("abdomen_ct", _hounsfield(space, truth, rng), truth, LABELS, affine)


def _organs(space: Space) -> dict[str, Mask]:
    """The organs; earlier ones cover later ones."""

    def kidney(side: float, height: float) -> Mask:
        hilum = space.ellipsoid((side * 38, 38, height), (22, 9, 20))
        return space.ellipsoid((side * 62, 40, height), (27, 21, 52), turn=side * 25) & ~hilum

    return {
        "spine": space.ellipsoid((0, 52, 0), (20, 17, 400)) | space.ellipsoid((0, 82, 0), (7, 18, 400)),
        "aorta": space.ellipsoid((11, 24, 0), (10, 10, 400)),
        "right kidney": kidney(-1, -48),
        "left kidney": kidney(1, -32),
        "spleen": space.ellipsoid((98, 34, 48), (25, 44, 46), turn=-15),
        "liver": space.ellipsoid((-68, -8, 44), (58, 66, 70))
        | space.ellipsoid((-8, -42, 52), (62, 30, 42), turn=8),
    }


def _hounsfield(space: Space, truth: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.int16]:
    """Hounsfield units of subcutaneous fat, muscle, bowel with gas, and the organs."""
    body = space.ellipsoid((0, 5, 0), (150, 112, 900))
    inside = space.ellipsoid((0, 5, 0), (132, 96, 900))
    cavity = space.ellipsoid((0, -6, 0), (120, 80, 900))
    image = np.full(truth.shape, AIR)
    for mask, value in ((body, FAT), (inside, MUSCLE), (cavity, FAT)):
        image[mask] = value
    bowel = cavity & (smooth_field(truth.shape, (5, 5, 3), rng) > 0.6)
    image[bowel] = GUT
    image[cavity & space.ellipsoid((38, -58, -10), (22, 9, 40))] = AIR / 1.2
    for name, index in LABELS.items():
        image[truth == index] = TISSUE[name]
    image += np.where(body, TEXTURE_HU * smooth_field(truth.shape, (2, 2, 1), rng), 0.0)
    image = gaussian_filter(image, BLUR_VOXELS)
    noise = gaussian_filter(rng.standard_normal(truth.shape), (0.5, 0.5, 0.0))
    return np.clip(np.rint(image + NOISE_HU * noise / noise.std()), -1024, 3071).astype(np.int16)
