"""Labels in MetaImage files, as ITK reads them."""

from __future__ import annotations

from pathlib import Path

from lib.errors import LabelError
from lib.images.itk import read_itk
from lib.images.medical_image import MedicalImage, regular_affine
from lib.labels.label_file import LabelFile, most_voxels


def read_metaimage_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a MetaImage label.

    Raises:
        LabelError: for colours.
        ImageError: for more than three axes, or several channels.
    """
    voxels = read_itk(path, most_voxels(image))
    if voxels.array.ndim != 3:
        raise LabelError("its voxels are colours: save one number for each voxel, 0 for background")
    return LabelFile(voxels.array, regular_affine(voxels.affine))
