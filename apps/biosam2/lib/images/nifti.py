"""NIfTI files, plain and gzipped."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.itk import itk_name, ras_affine
from lib.images.medical_image import Voxels, require_size
from lib.images.volume_header import read_exactly, require_count

# Bytes of a NIfTI-2 header; one of NIfTI-1 has 348.
_LONGEST_HEADER = 540


def read_nifti(path: Path, max_voxels: int) -> Voxels:
    """Reads one NIfTI-1 or NIfTI-2 volume or image.

    Integers stay integers where the header does not scale them. Colours are RGB24 and RGBA32 voxels, or a
    last axis of 3 or 4 bytes.

    Raises:
        ImageError: More than three axes, or fewer bytes than the header promises.
        ImageTooLargeError: By the header, before voxels are read.
    """
    header = read_nifti_header(path)
    size = header.get_data_shape()
    dtype, channels = _voxel_type(header.get_data_dtype())
    shape, trailing = _spatial(size, dtype, channels)
    require_size(shape, max_voxels, dtype.itemsize * max(channels, trailing, 1))
    count = int(np.prod(size, dtype=np.int64)) * max(channels, 1)
    buffer = _read_bytes(path, int(header.get_data_offset()), count * dtype.itemsize)
    array: NDArray
    if channels:
        array = np.ndarray((channels, *shape), dtype, buffer, order="F").transpose(1, 2, 3, 0)[..., :3]
    elif trailing:
        array = np.ndarray((*shape, trailing), dtype, buffer, order="F")[..., :3]
    else:
        slope, inter = header.get_slope_inter()
        array = _scaled(np.ndarray(shape, dtype, buffer, order="F"), slope or 1.0, inter or 0.0)
    return Voxels(array, _affine(path, header), is_2d=len(size) == 2)


def read_nifti_header(path: Path) -> Any:
    """Reads the header alone: nibabel makes no image where the qform is no rotation, and ITK does.

    Raises:
        ImageError: It is no header of NIfTI-1 or NIfTI-2.
    """
    with _open(path) as file:
        block = file.read(_LONGEST_HEADER)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(block):
            return kind(block[: kind.template_dtype.itemsize])
    raise ImageError("it does not begin as a NIfTI file does: copy or export it again")


def states_geometry(header: Any) -> bool:
    """True if a NIfTI header has an affine; without one each program assumes another."""
    return bool(int(header["sform_code"]) or int(header["qform_code"]))


def _affine(path: Path, header: Any) -> NDArray[np.float64]:
    """Affine (4, 4), voxel index to RAS millimetres, as ITK reads it: viewers built on ITK show the masks.

    ITK chooses between sform and qform by their codes, takes the spacing from the header's own field, and
    knows metres and micrometres. What it does not open, such as NIfTI-2 or a sheared sform alone, only
    programs can show that take the sform where there is one, as nibabel does.

    Raises:
        ImageError: Neither form can be used.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(itk_name(path))
    try:
        reader.ReadImageInformation()
        affine = ras_affine(reader)
        if np.linalg.matrix_rank(affine[:3, :3]) == 3:
            return affine
    except RuntimeError:
        pass
    try:
        return np.asarray(header.get_best_affine(), dtype=np.float64)
    except (ValueError, HeaderDataError) as error:
        raise ImageError(
            f"its qform is no rotation ({error}): set the spacing and the orientation in its header"
        ) from error


def _voxel_type(dtype: np.dtype) -> tuple[np.dtype, int]:
    """Type of a number in the file, and the numbers per voxel if voxels are colours, else 0."""
    if dtype.names:
        return np.dtype(np.uint8), len(dtype.names)
    return dtype, 0


def _spatial(shape: tuple[int, ...], dtype: np.dtype, channels: int) -> tuple[tuple[int, int, int], int]:
    """(I, J, K), and the length of a last axis of colours, else 0."""
    trailing = 0
    is_colour_axis = dtype == np.uint8 and not channels and shape[-1] in (3, 4)
    if is_colour_axis and (len(shape) == 4 or (len(shape) == 5 and shape[3] == 1)):
        shape, trailing = shape[:3], int(shape[-1])
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3:
        size = " x ".join(str(side) for side in shape)
        raise ImageError(
            f"the image has {len(shape)} axes ({size}) and three are the limit: save one volume of it, for "
            "example one time point, as a file of its own"
        )
    return (shape[0], shape[1], shape[2]), trailing


def _read_bytes(path: Path, offset: int, count: int) -> NDArray[np.uint8]:
    """Bytes of the voxels. The check sum of a gzipped file is verified, which nibabel leaves out."""
    if path.name.lower().endswith(".gz"):
        with path.open("rb") as file:
            return read_exactly(file, "gzip", count, skip=offset)
    buffer = np.empty(count, dtype=np.uint8)
    with path.open("rb") as file:
        file.seek(offset)
        require_count(file.readinto(buffer.data) or 0, count)
    return buffer


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _scaled(raw: NDArray, slope: float, inter: float) -> NDArray:
    """Voxels times slope plus inter: unchanged if that changes nothing, else float32."""
    if (slope, inter) == (1.0, 0.0):
        return raw
    if np.issubdtype(raw.dtype, np.complexfloating):
        return raw
    with np.errstate(over="ignore"):
        scaled = raw.astype(np.float32)
        scaled *= slope
        scaled += inter
    return scaled
