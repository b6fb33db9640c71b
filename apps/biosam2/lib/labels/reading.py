"""Opens a label with the reader of its format, on its image's grid, and reports failures as LabelError."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.errors import BioSam2Error, LabelError
from lib.images.itk import read_itk
from lib.images.medical_image import MedicalImage, regular_affine
from lib.images.nifti import read_nifti, read_nifti_header, states_geometry
from lib.images.reading import is_dicom, reason
from lib.labels.dicom_seg import read_dicom_seg
from lib.labels.grid import on_image_grid
from lib.labels.nrrd import read_nrrd_label
from lib.labels.picture import read_picture_label, split_instances
from lib.labels.polygons import read_polygon_label
from lib.labels.values import LabelFile, LabelMap, as_labels, most_voxels, name_values, present_values


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


logger = logging.getLogger(__name__)

Reader = Callable[[Path, MedicalImage], LabelFile]

_FORMATS: tuple[tuple[Reader, tuple[str, ...]], ...] = (
    (read_nifti_label, (".nii", ".nii.gz")),
    (read_nrrd_label, (".nrrd",)),
    (read_metaimage_label, (".mha", ".mhd")),
    (read_picture_label, (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")),
    (read_polygon_label, (".xml", ".geojson")),
    (read_dicom_seg, (".dcm",)),
)
# Types of label files in lower case; ``.seg.nrrd`` is one of ``.nrrd``.
LABEL_SUFFIXES = tuple(suffix for _, suffixes in _FORMATS for suffix in suffixes)


def read_labels(
    path: Path, image: MedicalImage, label_info: Sequence[Mapping[str, Any]] | None = None
) -> LabelMap:
    """Reads a label file onto the grid of its image.

    Args:
        path: Label file of a viewer or MONAI Label.
        image: Image that it belongs to.
        label_info: Classes in the datastore's info, ``[{"name": "spleen", "idx": 1}, ...]``.

    Returns:
        The label; without names if nothing is drawn in it.

    Raises:
        LabelError: With the file's name, what does not fit, and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise LabelError(f"there is no label file {path.name!r}: save the label again")
    if not path.stat().st_size:
        raise LabelError(f"{path.name} is empty (0 bytes): save or export the label again")
    try:
        return _label_map(path, image, label_info)
    except BioSam2Error as error:
        raise LabelError(f"{path.name}: {error}") from error
    except Exception as error:
        # A damaged file makes the libraries raise anything, from EOFError to struct.error.
        raise LabelError(
            f"{path.name} cannot be read as a label: {reason(error, path)}; save or export it again"
        ) from error


def _label_map(path: Path, image: MedicalImage, label_info: Sequence[Mapping[str, Any]] | None) -> LabelMap:
    found = _reader(path)(path, image)
    labels, numbers = as_labels(found.array)
    named = name_values(list(numbers.values()), found.names, None if found.has_instances else label_info)
    names = {value: named[number] for value, number in numbers.items()}
    array = on_image_grid(replace(found, array=labels), image)
    if names:
        names = _present(array, names, path)
    if image.is_2d and len(names) == 1 and not found.has_instances:
        pieces = split_instances(array)
        if pieces is not None:
            (name,) = names.values()
            array, names = pieces, dict.fromkeys(present_values(pieces), name)
    array.flags.writeable = False
    return LabelMap(array, names)


def _present(array: NDArray, names: Mapping[int, str], path: Path) -> dict[int, str]:
    """Names of the values that are present on the image's grid."""
    present = present_values(array)
    if not present:
        raise LabelError(
            "none of its objects lies inside its image: it is the label of another image; export it again "
            "from this one"
        )
    lost = [name for value, name in names.items() if value not in set(present)]
    if lost:
        logger.warning("%s: on the image's grid nothing is left of %s", path.name, ", ".join(lost))
    return {value: names[value] for value in present}


def _reader(path: Path) -> Reader:
    lowered = path.name.lower()
    for reader, suffixes in _FORMATS:
        if lowered.endswith(suffixes):
            return reader
    if is_dicom(path):
        return read_dicom_seg
    known = ", ".join(suffix for _, suffixes in _FORMATS for suffix in suffixes)
    raise LabelError(f"it is of no kind that can be read as a label: export one of {known}")
