"""The header of a NIfTI mask."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

# NIFTI_XFORM_SCANNER_ANAT: millimetres of the scanner. With this code alone ITK takes the sform before the
# qform, as nibabel always does.
_SCANNER = 1
# NIFTI_XFORM_UNKNOWN: the form is not there.
_UNKNOWN = 0
# Beyond it ITK takes the axes of a sform for sheared.
_SHEARED = 1e-4
_EXTENSION_FLAG = bytes(4)


def nifti_header(shape: tuple[int, ...], affine: NDArray[np.float64]) -> bytes:
    """Bytes that stand before the voxels of a uint8 volume in a single NIfTI-1 file.

    The geometry is in both forms, sform and qform, and every program finds the same one. A sheared affine has
    no qform, which can hold a rotation alone: ITK would take the nearest one, and the mask would lie beside
    its image.

    Args:
        shape: (I, J, K).
        affine: (4, 4), voxel index to RAS millimetres.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=_UNKNOWN if _is_sheared(affine) else _SCANNER, strip_shears=True)
    header.set_sform(affine, code=_SCANNER)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    return header.binaryblock + _EXTENSION_FLAG


def _is_sheared(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes @ axes.T - np.eye(3)).max() > _SHEARED)
