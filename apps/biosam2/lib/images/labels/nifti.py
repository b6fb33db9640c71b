"""Labels in NIfTI files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib

from lib.errors import LabelError
from lib.images.labels.grid import states_geometry
from lib.images.labels.label_file import LabelFile, most_voxels
from lib.images.medical_image import MedicalImage, regular_affine
from lib.images.nifti import read_nifti


def read_nifti_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a NIfTI label; one whose header has no affine is a label without a position.

    Raises:
        LabelError: for colours.
        ImageError: for more than three axes, or fewer bytes than the header promises.
    """
    voxels = read_nifti(path, most_voxels(image))
    if voxels.array.ndim != 3:
        raise LabelError("its voxels are colours: save one number for each voxel, 0 for background")
    is_placed = states_geometry(nib.load(path).header)
    return LabelFile(voxels.array, regular_affine(voxels.affine) if is_placed else None)
