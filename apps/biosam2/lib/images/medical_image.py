"""An opened image: voxels on the native grid, geometry, and facts about their intensities."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError, ImageTooLargeError
from lib.transforms.sampling import evenly_spaced, require_finite
from lib.transforms.windowing import IntensityWindow, choose_window

# Grid without geometry, as ITK and 3D Slicer place it: 1 mm, i to the left, j to the back.
LPS_IDENTITY = np.diag([-1.0, -1.0, 1.0, 1.0])


# Bytes per voxel that the limit of voxels allows on average: float32. Wider numbers halve the largest image.
MAX_ITEMSIZE = 4
# Frames of a grey clip that its window is chosen by.
_SAMPLED_FRAMES = 16


@dataclass(frozen=True, eq=False)
class MedicalImage:
    """One image, read-only; tasks share it between threads.

    Attributes:
        array: (I, J, K), or uint8 (I, J, K, 3) for colours, indexed as in the file; first axis fastest in
            memory. A 2-D image has K = 1, and array[x, y, 0] is its pixel in column x and row y. A video
            decodes its frames [:, :, t] when they are asked for.
        affine: (4, 4) float64, voxel index (i, j, k) to RAS millimetres.
        is_2d: True if the file has no third axis. A volume of one slice is no 2-D image.
        is_rgb: True if the voxels are colours.
        modality: DICOM modality such as ``CT``; None if it is not known.
        dicom_window: (low, high) of the DICOM tags; None if there are none.
        digest: SHA-256 of shape, dtype and voxels. Equal contents have equal digests, whatever the format
            (a video has one of its own).
        path: File or folder that it was read from.
        format: ``nifti``, ``itk``, ``raster``, ``video`` or ``dicom``.
    """

    array: NDArray
    affine: NDArray[np.float64]
    is_2d: bool
    is_rgb: bool
    modality: str | None
    dicom_window: tuple[float, float] | None
    digest: str
    path: Path
    format: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K)."""
        i, j, k = self.array.shape[:3]
        return int(i), int(j), int(k)

    def window(self, requested: Sequence[float] | None = None) -> IntensityWindow:
        """Intensity window of the image; without a request it is chosen once and kept.

        Args:
            requested: (low, high) in the image's intensities.

        Raises:
            PromptError: The requested window is not two finite numbers, low before high.
        """
        return self._own_window if requested is None else choose_window(self.array, requested=requested)

    @cached_property
    def _own_window(self) -> IntensityWindow:
        if self.is_rgb:
            return IntensityWindow(0.0, 255.0, "levels")
        array = self.array
        if not isinstance(array, np.ndarray):  # frames that are decoded when they are asked for
            array = np.stack([array[:, :, t] for t in evenly_spaced(self.shape[2], _SAMPLED_FRAMES)])
        return choose_window(array, dicom=self.dicom_window, modality=self.modality)


@dataclass(frozen=True, eq=False)
class Voxels:
    """Contents of an image file, before they are checked and stored in the smallest type.

    Attributes:
        array: (I, J, K) or uint8 (I, J, K, 3), any dtype.
        affine: (4, 4), voxel index to RAS millimetres.
        is_2d: True if the file has no third axis.
        modality: DICOM modality.
        dicom_window: (low, high) of the DICOM tags.
        digest: SHA-256 of the contents where the reader computed it; the voxels are uint8 then.
    """

    array: NDArray
    affine: NDArray[np.float64]
    is_2d: bool = False
    modality: str | None = None
    dicom_window: tuple[float, float] | None = None
    digest: str = ""


def make_image(voxels: Voxels, path: Path, file_format: str) -> MedicalImage:
    """Checks and completes the contents of a file.

    Raises:
        ImageError: NaN, infinities, complex numbers, or an affine that cannot be inverted.
    """
    array = voxels.array
    if not voxels.digest:
        array = _lean(array)
        require_finite(array)
        array.flags.writeable = False
    return MedicalImage(
        array=array,
        affine=regular_affine(voxels.affine),
        is_2d=voxels.is_2d,
        is_rgb=array.ndim == 4,
        modality=voxels.modality,
        dicom_window=voxels.dicom_window,
        digest=voxels.digest or content_digest(array),
        path=path,
        format=file_format,
    )


def require_size(shape: Sequence[int], max_voxels: int, itemsize: int = 1) -> None:
    """Refuses an image by the size in its header, before memory is taken for it.

    Args:
        shape: Voxels along each axis, without colour channels.
        max_voxels: Limit of voxels (``--conf max_voxels``). Their bytes may be ``MAX_ITEMSIZE`` times that.
        itemsize: Bytes of a voxel in the file, decompressed, all channels together.

    Raises:
        ImageError: An image without voxels.
        ImageTooLargeError: Too many voxels or bytes.
    """
    size = " x ".join(str(side) for side in shape)
    voxels = math.prod(int(side) for side in shape)
    if min(shape) < 1:
        raise ImageError(f"the image is {size} voxels large: there is nothing in it to segment")
    if voxels > max_voxels:
        raise ImageTooLargeError(
            f"the image has {size} = {voxels} voxels and this server opens at most {max_voxels}: crop or "
            "downsample it, or start the server with a higher --conf max_voxels"
        )
    if voxels * itemsize > max_voxels * MAX_ITEMSIZE:
        raise ImageTooLargeError(
            f"the image takes {voxels * itemsize} bytes ({size} voxels of {itemsize}) and this server opens "
            f"at most {max_voxels * MAX_ITEMSIZE}: save it as int16 or float32, crop it, or start the server "
            "with a higher --conf max_voxels"
        )


def content_digest(array: NDArray) -> str:
    """Hex SHA-256 of shape, dtype and voxels, first axis fastest. Takes 0.1 s for 100 MB: once per load."""
    memory = array.transpose(2, 1, 0, *range(3, array.ndim))
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(memory).data.cast("B"))
    return digest.hexdigest()


def _lean(array: NDArray) -> NDArray:
    """The same values in native byte order and the smallest of the types that hold them.

    Floats become float32: 24 bits are more than any display or network tells apart.
    """
    if array.dtype == bool:
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(_integer_type(array), copy=False)
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):
            return array.astype(np.float32, copy=False)
    raise ImageError(f"voxels of type {array.dtype} cannot be shown as grey levels: save the image as int16")


def _integer_type(array: NDArray) -> np.dtype:
    own = array.dtype.newbyteorder("=")
    if own.itemsize <= 2:
        return own
    low, high = int(array.min()), int(array.max())
    for smaller in (np.int16, np.uint16, np.int32):
        if np.iinfo(smaller).min <= low and high <= np.iinfo(smaller).max:
            return np.dtype(smaller)
    return own if own.itemsize <= 4 else np.dtype(np.float32)


def regular_affine(affine: NDArray) -> NDArray[np.float64]:
    """Affine in which an axis without extent (the third of a 2-D image) gets 1 mm across the other two.

    Raises:
        ImageError: It still cannot be inverted.
    """
    fixed = np.array(affine, dtype=np.float64)
    columns = fixed[:3, :3]
    empty = np.flatnonzero(~columns.any(axis=0))
    if len(empty) == 1:
        axis = int(empty[0])
        normal = np.cross(columns[:, (axis + 1) % 3], columns[:, (axis + 2) % 3])
        columns[:, axis] = normal / max(float(np.linalg.norm(normal)), np.finfo(float).tiny)
    if not np.isfinite(fixed).all() or np.linalg.matrix_rank(columns) < 3:
        raise ImageError(
            f"the image's geometry cannot be used, its affine is {np.asarray(affine).tolist()}: "
            "set the spacing and the orientation in its header"
        )
    fixed.flags.writeable = False
    return fixed
