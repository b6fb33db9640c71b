"""Labels in NIfTI and MetaImage files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import LabelError
from lib.images.itk import read_itk
from lib.images.medical_image import MedicalImage, regular_affine
from lib.images.nifti import read_nifti, read_nifti_header, states_geometry
from lib.labels.label_map import LabelFile, most_voxels


def read_nifti_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a NIfTI label; without an affine in its header it has no position.

    Raises:
        LabelError: Colours.
        ImageError: More than three axes, or fewer bytes than the header promises.
    """
    voxels = read_nifti(path, most_voxels(image))
    if voxels.array.ndim != 3:
        raise LabelError("its voxels are colours: save one number for each voxel, 0 for background")
    header = read_nifti_header(path)
    if not states_geometry(header):
        return LabelFile(voxels.array, None)
    is_image_grid = voxels.array.shape == image.shape and _has_sform_of(image, header)
    return LabelFile(voxels.array, image.affine if is_image_grid else regular_affine(voxels.affine))


def _has_sform_of(image: MedicalImage, header: Any) -> bool:
    """True if a label has its image's sform: nibabel's programs copy it alone, and ITK may ignore it."""
    if image.format != "nifti" or not image.path.is_file():
        return False
    sforms = [one.get_sform(coded=True)[0] for one in (header, read_nifti_header(image.path))]
    return all(sform is not None for sform in sforms) and np.allclose(*sforms)


def read_metaimage_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a MetaImage label.

    Raises:
        LabelError: Colours.
        ImageError: More than three axes, several channels, or voxels in another file.
    """
    voxels = read_itk(path, most_voxels(image))
    if voxels.array.ndim != 3:
        raise LabelError("its voxels are colours: save one number for each voxel, 0 for background")
    return LabelFile(voxels.array, regular_affine(voxels.affine))
