"""Opens an image with the reader of its format, and reports every failure as one kind of error."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lib.errors import BioSam2Error, ImageError, ImageNotFoundError
from lib.images.dicom import read_dicom
from lib.images.dicom_header import common_window, headers_beside
from lib.images.file_formats import FORMATS, SLIDE_SUFFIXES
from lib.images.itk import read_itk
from lib.images.medical_image import MedicalImage, Voxels, make_image
from lib.images.nifti import read_nifti
from lib.images.raster import read_raster
from lib.images.video import read_video

__all__ = ["MedicalImage", "is_dicom", "read_image", "reason"]

Reader = Callable[[Path, int], Voxels]

_READERS: dict[str, Reader] = {
    "nifti": read_nifti,
    "itk": read_itk,
    "raster": read_raster,
    "video": read_video,
    "dicom": read_dicom,
}
# A DICOM file says so after its preamble, whatever it is called.
_DICOM_MARK = (128, b"DICM")
_REASON_LENGTH = 300


def read_image(path: Path | str, max_voxels: int) -> MedicalImage:
    """Opens an image on its native grid.

    Args:
        path: NIfTI, NRRD, MetaImage, PNG, JPEG, BMP, TIFF, MP4, AVI or DICOM file, or a folder with a DICOM
            series. The window of ``<name>.nii.gz`` comes from the series in ``<name>/`` if there is one.
        max_voxels: Limit of voxels, checked by the header before voxels are read.

    Raises:
        ImageNotFoundError: There is no such file.
        ImageTooLargeError: It has more voxels, or too many bytes.
        ImageError: It cannot be read, has more than three axes, or NaN or infinite values.
    """
    if not str(path) or not Path(path).exists():
        raise ImageNotFoundError(
            f"there is no image {Path(path).name!r}: choose one that the datastore lists"
        )
    path = Path(path)
    if path.is_file() and not path.stat().st_size:
        raise ImageError(f"{path.name} is empty (0 bytes): copy or export it again")
    name, reader = _reader(path)
    try:
        voxels = reader(path, max_voxels)
        if name == "nifti":
            headers = headers_beside(path)
            modality = headers[0].modality if headers else None
            voxels = replace(voxels, modality=modality, dicom_window=common_window(headers))
        return make_image(voxels, path, name)
    except BioSam2Error as error:
        raise type(error)(f"{path.name}: {error}") from error
    except Exception as error:
        # A damaged file makes the libraries raise anything, from EOFError to struct.error.
        raise ImageError(
            f"{path.name} cannot be read: {reason(error, path)}; copy or export it again"
        ) from error


def _reader(path: Path) -> tuple[str, Reader]:
    lowered = path.name.lower()
    for name, suffixes in FORMATS.items():
        if lowered.endswith(suffixes):
            return name, _READERS[name]
    if path.is_dir() or is_dicom(path):
        return "dicom", read_dicom
    if lowered.endswith(SLIDE_SUFFIXES):
        raise ImageError(
            f"{path.name} is a whole slide, which is never opened as one image: label it with "
            "biosam2_pathology, and submit the rectangle that you have labelled instead of the slide"
        )
    known = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
    raise ImageError(f"Unsupported file format of {path.name} (supported: {known}, or a DICOM folder)")


def is_dicom(path: Path) -> bool:
    """True if a file has the mark of DICOM behind its preamble."""
    offset, mark = _DICOM_MARK
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(len(mark)) == mark


def reason(error: Exception, path: Path) -> str:
    """Last line of an error's text, without the folders of the server."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    text = text.removeprefix("sitk::ERROR: ").replace(f"{path.parent}{os.sep}", "")
    return text[:_REASON_LENGTH].rstrip(".")
