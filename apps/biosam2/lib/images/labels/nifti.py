"""Labels in NIfTI files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from lib.errors import LabelError
from lib.images.labels.grid import states_geometry
from lib.images.labels.label_file import LabelFile
from lib.images.nifti import read_nifti


def read_nifti_label(path: Path, max_voxels: int) -> LabelFile:
    """Reads a NIfTI label. A header without an affine leaves the label without a position.

    Raises:
        LabelError: for colours.
        ImageError: for more than three axes, or fewer bytes than the header promises.
    """
    voxels = read_nifti(path, max_voxels)
    if voxels.array.ndim != 3:
        raise LabelError("its voxels are colours: save one number for each voxel, 0 for background")
    placed = states_geometry(nib.load(path).header)
    return LabelFile(voxels.array, np.asarray(voxels.affine, dtype=float) if placed else None)
