"""NRRD and MetaImage files, and conversions between ITK's images and arrays."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.medical_image import LPS_IDENTITY, Voxels, require_size
from lib.images.volume_header import meta_voxels, nrrd_voxels
from lib.transforms.frames import spacing

# ITK itself knows them in lower case alone.
_META = (".mha", ".mhd")


def read_itk(path: Path, max_voxels: int) -> Voxels:
    """Reads one NRRD or MetaImage file.

    ITK reads files that a header names, fills voxels from memory where a stream ends early, and looks at no
    check sum: it gets a file only after these are checked.

    Raises:
        ImageError: More than three axes, channels that are no colours, voxels in another file, a damaged
            stream, or a path that is not UTF-8.
        ImageTooLargeError: By the header, before voxels are read.
    """
    name = itk_name(path)
    is_meta = path.suffix.lower() in _META
    voxels = meta_voxels(path) if is_meta else nrrd_voxels(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.SetImageIO("MetaImageIO" if is_meta else "NrrdImageIO")
    reader.ReadImageInformation()
    _require_three_axes(reader.GetSize())
    itemsize = reader.GetNumberOfComponents() * _itemsize(reader.GetPixelID())
    require_size(reader.GetSize(), max_voxels, itemsize)
    voxels.require_whole(math.prod(reader.GetSize()) * itemsize)
    return from_itk(reader.Execute())


def _itemsize(pixel_id: int) -> int:
    """Bytes of one component of a pixel type, scalar or vector."""
    return sitk.GetArrayViewFromImage(sitk.Image([1, 1], pixel_id)).itemsize


def itk_name(path: Path) -> str:
    """Path as text for ITK.

    Raises:
        ImageError: It is not UTF-8, at which ITK would end the process.
    """
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ImageError(
            "its name or a folder's is not UTF-8, as from another system's ZIP: rename it"
        ) from error
    return name


def _require_three_axes(size: tuple[int, ...]) -> None:
    if any(side > 1 for side in size[3:]):
        raise ImageError(
            f"the image has {len(size)} axes ({' x '.join(str(side) for side in size)}) and three are the "
            "limit: save one volume of it, for example one time point, as a file of its own"
        )


def from_itk(image: sitk.Image) -> Voxels:
    """Turns ITK's image (k, j, i, LPS) into ours (i, j, k, RAS). The voxels are copied once.

    Raises:
        ImageError: Channels that are no colours.
    """
    while image.GetDimension() > 3:
        image = image[..., 0]
    is_2d = image.GetDimension() == 2
    array = sitk.GetArrayFromImage(image)
    return Voxels(colours_or_greys(array[None] if is_2d else array), ras_affine(image), is_2d)


def colours_or_greys(memory: NDArray) -> NDArray:
    """ITK's array of a volume, (K, J, I) or (K, J, I, C), as (I, J, K) or (I, J, K, 3), without a copy.

    Raises:
        ImageError: Channels that are no colours.
    """
    if memory.ndim == 4:
        channels = memory.shape[3]
        if channels not in (3, 4) or memory.dtype != np.uint8:
            raise ImageError(
                f"the image has {channels} channels of {memory.dtype}; what can be opened is one channel, or "
                "colours as 3 or 4 bytes: save one channel as a file of its own"
            )
        memory = memory[..., :3]
    return memory.transpose(2, 1, 0, *range(3, memory.ndim))


def ras_affine(image: sitk.Image | sitk.ImageFileReader) -> NDArray[np.float64]:
    """Affine (4, 4) from voxel index to RAS millimetres, of the first three axes.

    A 2-D image lies in the plane z = 0, 1 mm thick.

    Args:
        image: Image, or a reader that has read the header of one.
    """
    axes = image.GetDimension()
    n = min(axes, 3)
    lps = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(axes, axes)
    lps[:n, :n] = direction[:n, :n] * np.array(image.GetSpacing()[:n])
    lps[:n, 3] = image.GetOrigin()[:n]
    return LPS_IDENTITY @ lps


def to_itk(voxels: Voxels) -> sitk.Image:
    """Volume as an ITK image (k, j, i, LPS), whose axes are at right angles."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.array.T))
    lps = LPS_IDENTITY @ voxels.affine
    sides = spacing(lps)
    image.SetSpacing(sides)
    image.SetDirection((lps[:3, :3] / sides).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image
