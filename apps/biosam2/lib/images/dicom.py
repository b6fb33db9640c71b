"""DICOM: a file of one or many frames, or a folder with a series."""

from __future__ import annotations

import logging
from pathlib import Path

import SimpleITK as sitk

from lib.errors import ImageError
from lib.images.dicom_series import require_even_frames, require_even_stack
from lib.images.dicom_tags import DicomTags, read_tags
from lib.images.itk import from_itk, itk_name
from lib.images.medical_image import Voxels, require_size

logger = logging.getLogger(__name__)

# The fastest: a volume that is made once and read often from the disk beside it.
_LEVEL = 1


def read_dicom(path: Path, max_voxels: int) -> Voxels:
    """Reads a file, or the first series of a folder: rescaled, slices ascending along their normal.

    That is how MONAI Label turns a series into NIfTI, so indices are those of OHIF and of the label files.

    Raises:
        ImageError: for a folder without a series, or with one that is no even stack of slices.
        ImageTooLargeError: by the headers, before voxels are read.
    """
    files, tags = _files(path, max_voxels)
    found = from_itk(_open(files))
    is_colour = found.array.ndim == 4
    return Voxels(
        found.array, found.affine, modality=tags.modality, dicom_window=None if is_colour else tags.window
    )


def save_as_nifti(folder: Path, path: Path, max_voxels: int) -> bool:
    """Writes the first series of a folder as the NIfTI volume that clients know.

    Args:
        folder: with a series.
        path: of the new file, ``.nii`` or ``.nii.gz``.
        max_voxels: largest series that is opened.

    Returns:
        Whether it was written: colours have no place in NIfTI that all clients read.

    Raises:
        ImageError: as ``read_dicom``, and for pixels that cannot be decoded.
    """
    files, _ = _files(folder, max_voxels)
    try:
        image = _open(files)
    except RuntimeError as error:
        raise ImageError(f"its pixels cannot be read: {error}") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        return False
    sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=_LEVEL)
    return True


def _files(path: Path, max_voxels: int) -> tuple[list[Path], DicomTags]:
    """Files in the order of their slices, checked as far as their headers tell, and the tags of the first."""
    files = series_files(path) if path.is_dir() else [path]
    # GDCM reads a whole file even when asked for its header alone, so the size comes from pydicom.
    tags = read_tags(files[0])
    columns, rows, frames = tags.size
    require_size((columns, rows, frames * len(files)), max_voxels)
    if len(files) > 1:
        require_even_stack(files)
    elif frames > 1:
        require_even_frames(files[0])
    return files, tags


def _open(files: list[Path]) -> sitk.Image:
    return _read_series(files) if len(files) > 1 else sitk.ReadImage(itk_name(files[0]))


def series_files(folder: Path) -> list[Path]:
    """Files of the folder's first series, in the order of their slices.

    Raises:
        ImageError: for a folder without a series, or whose path is not UTF-8.
    """
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(itk_name(folder))
    if not ids:
        raise ImageError("the folder has no DICOM series that can be read: name one with .dcm files in it")
    if len(ids) > 1:
        logger.warning("%s holds %d DICOM series; the first, %s, is opened", folder, len(ids), ids[0])
    return [Path(name) for name in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0])]


def _read_series(files: list[Path]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([itk_name(file) for file in files])
    return reader.Execute()
