"""DICOM: a file of one or many frames, or a folder with a series."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.dicom_header import GROUPS, DicomHeader, Frame, common_window, first_item, read_header
from lib.images.dicom_stack import is_tilted, require_one_stack, slice_step
from lib.images.itk import colours_or_greys, from_itk, itk_name, ras_affine, to_itk
from lib.images.medical_image import LPS_IDENTITY, Voxels, require_size

logger = logging.getLogger(__name__)

# The fastest: a volume that is made once and read often from the disk beside it.
_LEVEL = 1
_TILTED = (
    "its slices are shifted against each other by a tilted gantry, which NIfTI cannot hold: open it as "
    "DICOM, or resample it to right angles, for example in 3D Slicer"
)
_TRANSFORMATION = "PixelValueTransformationSequence"


def read_dicom(path: Path, max_voxels: int) -> Voxels:
    """Reads a file, or the first series of a folder: rescaled, slices ascending along their normal.

    Slope, intercept, bits, sign and photometric interpretation are those of each slice and frame. Slices that
    a tilted gantry shifted keep their pixels: the third axis of the affine is not at right angles then.

    Raises:
        ImageError: A folder without a series, several clips, no even stack of slices, or pixels that are cut
            off or cannot be decoded.
        ImageTooLargeError: By the headers, before voxels are read.
    """
    return _read(_headers(path, max_voxels))


def save_as_nifti(folder: Path, path: Path, max_voxels: int) -> bool:
    """Writes the first series of a folder as the NIfTI volume that clients know.

    Args:
        folder: Folder with a series.
        path: New file, ``.nii`` or ``.nii.gz``.
        max_voxels: Limit of voxels.

    Returns:
        Whether it was written: colours have no place in NIfTI that all clients read.

    Raises:
        ImageError: As ``read_dicom``, and for a tilted gantry, which NIfTI's readers place wrongly.
    """
    headers = _headers(folder, max_voxels)
    if headers[0].samples > 1:
        return False
    if is_tilted(_slices(headers), headers[0].spacing):
        raise ImageError(_TILTED)
    found = _read(headers)
    if found.array.ndim == 4:
        return False
    sitk.WriteImage(to_itk(found), str(path), useCompression=True, compressionLevel=_LEVEL)
    return True


def why_no_nifti(folder: Path) -> str:
    """Reason why the first series of a folder cannot be a NIfTI volume; empty if its headers show none."""
    try:
        headers = _headers(folder, sys.maxsize)
    except ImageError as error:
        return str(error)
    if headers[0].samples > 1:
        return "it has colours"
    return _TILTED if is_tilted(_slices(headers), headers[0].spacing) else ""


def series_files(folder: Path) -> list[Path]:
    """Files of the folder's first series, in the order of their slices.

    Raises:
        ImageError: A folder without a series, or a path that is not UTF-8.
    """
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(itk_name(folder))
    if not ids:
        raise ImageError("the folder has no DICOM series that can be read: name one with .dcm files in it")
    if len(ids) > 1:
        logger.warning("%s holds %d DICOM series; the first, %s, is opened", folder, len(ids), ids[0])
    return [Path(name) for name in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0])]


def _headers(path: Path, max_voxels: int) -> list[DicomHeader]:
    """Headers in the order of the slices, checked as far as they tell."""
    headers = [read_header(file) for file in (series_files(path) if path.is_dir() else [path])]
    columns, rows, _ = headers[0].size
    # GDCM reads a whole file even when asked for its header alone, so the size comes from pydicom.
    require_size((columns, rows, sum(header.size[2] for header in headers)), max_voxels)
    for header in headers:
        if header.fault:
            where = f" ({header.file.name})" if path.is_dir() else ""
            raise ImageError(f"{header.fault}{where}")
    require_one_stack(headers)
    return headers


def _slices(headers: Sequence[DicomHeader]) -> list[Frame]:
    return [frame for header in headers for frame in header.frames]


def _read(headers: Sequence[DicomHeader]) -> Voxels:
    found = _read_slices(headers) if len(headers) > 1 else _read_file(headers[0])
    affine = found.affine.copy()
    if (step := slice_step(_slices(headers))) is not None:
        across = LPS_IDENTITY[:3, :3] @ step
        # Without an orientation ITK's own is taken, and of the positions their distance alone.
        normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
        is_turned = len(headers[0].frames[0].orientation) == 6
        affine[:3, 2] = across if is_turned else normal * np.linalg.norm(across)
    is_colour = found.array.ndim == 4
    window = None if is_colour else common_window(headers)
    return Voxels(found.array, affine, modality=headers[0].modality, dicom_window=window)


def _decoded(file: Path) -> sitk.Image:
    try:
        return sitk.ReadImage(itk_name(file))
    except RuntimeError as error:
        syntax = pydicom.dcmread(file, specific_tags=[]).file_meta.get("TransferSyntaxUID", "")
        raise ImageError(
            f"its pixels cannot be decoded ({getattr(syntax, 'name', syntax)}): export it uncompressed"
        ) from error


def _read_slices(headers: Sequence[DicomHeader]) -> Voxels:
    """Reads files of one slice each, in a type that holds the values of all."""
    affine, volume = np.eye(4), np.zeros(0)
    for index, header in enumerate(headers):
        image = _decoded(header.file)
        values = sitk.GetArrayViewFromImage(image)[0]
        if not index:
            # First axis fastest, as in the files.
            volume, affine = np.zeros((len(headers), *values.shape), values.dtype), ras_affine(image)
        if values.shape != volume.shape[1:]:
            raise ImageError(f"{header.file.name} has pixels of another shape than the first slice")
        if (common := _common_type(volume.dtype, values.dtype)) != volume.dtype:
            volume = volume.astype(common)
        volume[index] = values
    return Voxels(colours_or_greys(volume), affine)


def _common_type(one: np.dtype, other: np.dtype) -> np.dtype:
    """Smallest type that holds the values of both; float32 for all that is not whole."""
    if "f" in (one.kind, other.kind):
        return np.dtype(np.float32)
    return np.result_type(one, other)


def _read_file(header: DicomHeader) -> Voxels:
    """Reads one file. GDCM rescales all frames alike, so frames with their own rescaling get it here."""
    rescales = [frame.rescale for frame in header.frames]
    if len(set(rescales)) < 2:
        return from_itk(_decoded(header.file))
    found = from_itk(_stored_values(header.file))
    return Voxels(_rescaled(found.array, rescales), found.affine)


def _stored_values(file: Path) -> sitk.Image:
    """Image of a file without its rescaling, which GDCM would take from one frame."""
    dataset = pydicom.dcmread(file)
    shared = first_item(dataset, GROUPS[0])
    for source in (dataset, shared, *(dataset.get(GROUPS[1]) or [])):
        for name in (_TRANSFORMATION, "RescaleSlope", "RescaleIntercept", "RescaleType"):
            if source is not None and name in source:
                delattr(source, name)
    with tempfile.TemporaryDirectory(prefix="biosam2-dicom-") as folder:
        plain = Path(folder) / "stored.dcm"
        dataset.save_as(plain)
        return _decoded(plain)


def _rescaled(stored: NDArray, rescales: Sequence[tuple[float, float]]) -> NDArray:
    """Frames of (I, J, K) times slope plus intercept each; float32 where a number is not whole."""
    is_whole = all(float(number).is_integer() for pair in rescales for number in pair)
    rescaled = np.empty(stored.shape, np.int64 if is_whole else np.float32, order="F")
    for k, (slope, intercept) in enumerate(rescales):
        # Stored bytes times a small number would be bytes again, and run over.
        frame: NDArray = stored[:, :, k].astype(rescaled.dtype)
        rescaled[:, :, k] = frame * rescaled.dtype.type(slope) + rescaled.dtype.type(intercept)
    return rescaled
