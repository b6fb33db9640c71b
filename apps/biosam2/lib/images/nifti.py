"""NIfTI files, plain and gzipped."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.medical_image import Voxels, require_size

# Bytes that are read together: large enough that Python's share is small.
CHUNK = 1 << 20


def read_nifti(path: Path, max_voxels: int) -> Voxels:
    """Reads one NIfTI-1 or NIfTI-2 volume or image.

    Integers stay integers where the header does not scale them. Colours are RGB24 and RGBA32 voxels, or a
    last axis of 3 or 4 bytes.

    Raises:
        ImageError: for more than three axes, or fewer bytes than the header promises.
        ImageTooLargeError: by the header, before voxels are read.
    """
    image: Any = nib.load(path, mmap=False)
    proxy = image.dataobj
    dtype, channels = _voxel_type(proxy.dtype)
    shape, trailing = _spatial(tuple(proxy.shape), dtype, channels)
    require_size(shape, max_voxels)
    count = int(np.prod(proxy.shape, dtype=np.int64)) * max(channels, 1)
    buffer = _read_bytes(path, int(proxy.offset), count * dtype.itemsize)
    array: NDArray
    if channels:
        array = np.ndarray((channels, *shape), dtype, buffer, order="F").transpose(1, 2, 3, 0)[..., :3]
    elif trailing:
        array = np.ndarray((*shape, trailing), dtype, buffer, order="F")[..., :3]
    else:
        array = _scaled(np.ndarray(shape, dtype, buffer, order="F"), float(proxy.slope), float(proxy.inter))
    return Voxels(array, image.affine, is_2d=len(proxy.shape) == 2)


def _voxel_type(dtype: np.dtype) -> tuple[np.dtype, int]:
    """Type of a number in the file, and numbers per voxel where a voxel is a colour, else 0."""
    if dtype.names:
        return np.dtype(np.uint8), len(dtype.names)
    return dtype, 0


def _spatial(shape: tuple[int, ...], dtype: np.dtype, channels: int) -> tuple[tuple[int, int, int], int]:
    """(I, J, K), and the length of a last axis that is colours, else 0."""
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
    """Bytes of the voxels. Of a gzipped file the check sum is looked at too, which nibabel leaves out."""
    buffer = np.empty(count, dtype=np.uint8)
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        file.seek(offset)
        got = _fill(file, buffer.data)
        if got < count:
            raise ImageError(
                f"the file is cut off: its header promises {count} bytes of voxels and it holds {got}; copy "
                "or export it again"
            )
        file.read(1)
    return buffer


def _fill(file: Any, view: memoryview) -> int:
    got = 0
    while got < len(view):
        count = file.readinto(view[got : got + CHUNK])
        if not count:
            break
        got += count
    return got


def _scaled(raw: NDArray, slope: float, inter: float) -> NDArray:
    """Voxels times slope plus inter: as they are where that changes nothing, else float32."""
    if (slope, inter) == (1.0, 0.0):
        return raw
    if np.issubdtype(raw.dtype, np.complexfloating):
        return raw
    with np.errstate(over="ignore"):
        scaled = raw.astype(np.float32)
        scaled *= slope
        scaled += inter
    return scaled
