"""PNG, JPEG, BMP and TIFF images, and TIFF stacks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from lib.errors import ImageError, ImageTooLargeError
from lib.images.itk import itk_name
from lib.images.medical_image import LPS_IDENTITY, Voxels, require_size
from lib.images.tiff import is_tiff, tiff_numbers, without_orientation

# Greys of more than 8 bits, as Pillow names them.
_DEEP = {"I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
_GREY = ("1", "L", "LA", "La")
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
# Colour types of PNG: with and without transparency.
_PNG_COLOURS = (2, 6)


def read_raster(path: Path, max_voxels: int) -> Voxels:
    """Reads an image; array[x, y, k] is the pixel in column x and row y of page k.

    A TIFF of several pages of one size is a volume, as ITK's viewers and ImageJ show it; of pages of several
    sizes, such as thumbnails, the first is the image.

    Greys keep their depth and sign, colours become 8-bit levels. Transparency is left out. Pixels are taken
    as they are stored: the orientation tag of a TIFF, JPEG or PNG is not applied, so that a mask fits the
    file, as ITK's viewers and QuPath show it.

    Raises:
        ImageError: An animation, pages of several kinds, or channels that are no colours.
        ImageTooLargeError: By the header, before pixels are read.
    """
    numbers = _numbers(path, max_voxels)
    if numbers is None:
        with open_raster(path, max_voxels) as image:
            numbers = np.stack([_pixels(page) for page in pages(image)])
    if numbers.ndim == 4:
        numbers = _levels(numbers)
    elif numbers.dtype == bool:
        numbers = numbers.astype(np.uint8) * 255
    return Voxels(numbers.swapaxes(0, 2), LPS_IDENTITY, is_2d=len(numbers) == 1)


def open_raster(path: Path, max_voxels: int) -> Image.Image:
    """Opens an image, whose pixels are not read yet; the caller closes it.

    Raises:
        ImageError: An animation.
        ImageTooLargeError: By the header.
    """
    try:
        # Pillow turns TIFF by its orientation, and nothing else.
        image = Image.open(without_orientation(path) if is_tiff(path) else path)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{error}: crop or downsample the image") from error
    try:
        require_size((*image.size, _page_count(image)), max_voxels, len(image.getbands()))
    except BaseException:
        image.close()
        raise
    return image


def pages(image: Image.Image) -> Iterator[Image.Image]:
    """The image at each of its pages of one size."""
    for page in range(_page_count(image)):
        image.seek(page)
        yield image


def _page_count(image: Image.Image) -> int:
    """Pages of one size: of other sizes they are thumbnails or a pyramid, whose first page is the image."""
    count, size = getattr(image, "n_frames", 1), image.size
    if count < 2:
        return 1
    image.seek(1)
    second = image.size
    image.seek(0)
    if second != size:
        return 1
    if image.format != "TIFF":
        raise ImageError(f"the file is an animation of {count} frames: save one of them as a file of its own")
    return count


def _numbers(path: Path, max_voxels: int) -> NDArray | None:
    """(K, H, W) or (K, H, W, 3) as stored, of kinds that Pillow changes; None of the others."""
    if is_tiff(path):
        return tiff_numbers(path, max_voxels)
    with path.open("rb") as file:
        head = file.read(26)
    if not head.startswith(_PNG_MARK) or len(head) < 26:
        return None
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if bits < 16 or colour not in _PNG_COLOURS:
        return None
    require_size((width, height), max_voxels, 2 * 4)
    return sitk.GetArrayFromImage(sitk.ReadImage(itk_name(path), imageIO="PNGImageIO"))[None, ..., :3]


def _levels(colours: NDArray) -> NDArray[np.uint8]:
    """Colours of any depth as 8-bit levels: of the bits that are used, the upper eight."""
    if colours.dtype == np.uint8:
        return colours
    low, high = min(0.0, float(colours.min())), max(1.0, float(colours.max()))
    if colours.dtype.kind in "ui":
        # Cameras of 10 to 14 bits save 16; the brightest pixel tells how many are used.
        high = float(2 ** max(8, int(high).bit_length()) - 1)
    levels = (colours.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    return np.rint(levels).astype(np.uint8)


def _pixels(image: Image.Image) -> NDArray:
    """(H, W) or uint8 (H, W, 3)."""
    if image.mode in _DEEP:
        return np.asarray(image).astype(_DEEP[image.mode], copy=False)
    return np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
