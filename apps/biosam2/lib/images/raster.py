"""PNG, JPEG, BMP and TIFF images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.errors import ImageError, ImageTooLargeError
from lib.images.medical_image import LPS_IDENTITY, Voxels, require_size

# Greys of more than 8 bits, as Pillow names them.
_DEEP = {"I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
_GREY = ("1", "L", "LA", "La")


def read_raster(path: Path, max_voxels: int) -> Voxels:
    """Reads one 2-D image; array[x, y, 0] is the pixel in column x and row y.

    Greys of 16 and 32 bits keep their depth. Transparency is left out. Pixels are taken as they are stored:
    an EXIF orientation is not applied, so that a mask fits the file.

    Raises:
        ImageError: for a stack of pages.
        ImageTooLargeError: by the header, before pixels are read.
    """
    with open_raster(path, max_voxels) as image:
        pixels = _pixels(image)
    return Voxels(pixels.swapaxes(0, 1)[:, :, None], LPS_IDENTITY, is_2d=True)


def open_raster(path: Path, max_voxels: int) -> Image.Image:
    """Opens one 2-D image, whose pixels are not read yet; the caller closes it.

    Raises:
        ImageError: for a stack of pages.
        ImageTooLargeError: by the header.
    """
    try:
        image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{error}: crop or downsample the image") from error
    try:
        require_size(image.size, max_voxels)
        _require_one_page(image)
    except BaseException:
        image.close()
        raise
    return image


def _require_one_page(image: Image.Image) -> None:
    """Refuses a stack. Pages of other sizes are thumbnails or a pyramid, whose first page is the image."""
    pages, size = getattr(image, "n_frames", 1), image.size
    if pages < 2:
        return
    image.seek(1)
    second = image.size
    image.seek(0)
    if second == size:
        raise ImageError(
            f"the file is a stack of {pages} pages: save it as a volume (NIfTI or NRRD), or one page of it"
        )


def _pixels(image: Image.Image) -> NDArray:
    """(H, W) or uint8 (H, W, 3)."""
    if image.mode in _DEEP:
        return np.asarray(image).astype(_DEEP[image.mode], copy=False)
    return np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
