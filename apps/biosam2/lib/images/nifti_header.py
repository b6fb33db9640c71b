"""The header of a NIfTI mask."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

# NIFTI_XFORM_SCANNER_ANAT: millimetres of the scanner.
_SCANNER = 1
_EXTENSION_FLAG = bytes(4)


def nifti_header(shape: tuple[int, ...], affine: NDArray[np.float64]) -> bytes:
    """Bytes that stand before the voxels of a uint8 volume in a single NIfTI-1 file.

    The geometry is in both forms: the qform for programs that ask for a rotation, which a sheared affine is
    only nearest to, and the sform with the affine itself.

    Args:
        shape: (I, J, K).
        affine: (4, 4), voxel index to RAS millimetres.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=_SCANNER, strip_shears=True)
    header.set_sform(affine, code=_SCANNER)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    return header.binaryblock + _EXTENSION_FLAG
