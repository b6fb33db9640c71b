"""Labels in pictures: PNG, TIFF and BMP, with one value or one colour for each object or class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.errors import LabelError
from lib.images.medical_image import MedicalImage
from lib.images.raster import open_raster
from lib.labels.label_file import LabelFile, most_voxels

# More colours than any list of classes has, and fewer than any photograph.
_MOST_COLOURS = 255
# Modes of Pillow with one number for each pixel; the others are converted to colours first.
_NUMBERS = ("1", "L", "I;16", "I;16L", "I;16B", "I", "F")


def read_picture_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a picture, which has no geometry; array[x, y, 0] is the pixel in column x and row y.

    Greys are values. Of a picture with a palette the values are the palette's indices, unless the palette has
    nothing but greys. Of a picture in colours, black and transparent pixels are background and every other
    colour is a value, in ascending order of red, green, blue, and its name is ``#rrggbb``.

    Raises:
        LabelError: for a JPEG, or more than 255 colours.
        ImageError: for a stack of pages.
        ImageTooLargeError: by the header, before pixels are read.
    """
    with open_raster(path, most_voxels(image)) as opened:
        if opened.format == "JPEG":
            raise LabelError("it is a JPEG, which changes the values of labels: save it as PNG")
        pixels, names = _pixels(opened)
    return LabelFile(pixels.swapaxes(0, 1)[:, :, None], None, names)


def _pixels(opened: Image.Image) -> tuple[NDArray, dict[int, str]]:
    """(H, W) numbers, and the names of those that stand for colours."""
    if opened.mode in _NUMBERS:
        return np.asarray(opened), {}
    if opened.mode == "P" and _is_coloured(opened):
        return np.asarray(opened), {}
    channels = np.asarray(opened.convert("RGBA"))
    visible = channels[..., 3] > 0
    red, green, blue = (np.where(visible, channels[..., channel], 0) for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red, {}
    packed = red.astype(np.uint32) << 16 | green.astype(np.uint32) << 8 | blue
    return _numbered(packed)


def _is_coloured(opened: Image.Image) -> bool:
    """Whether a palette has colours: one of greys stands for the greys, not for numbers of classes."""
    used = np.unique(np.asarray(opened))
    palette = np.array(opened.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    shown = palette[used[used < len(palette)]]
    return bool((shown != shown[:, :1]).any())


def _numbered(packed: NDArray[np.uint32]) -> tuple[NDArray, dict[int, str]]:
    colours = np.unique(packed)
    colours = colours[colours != 0]
    if len(colours) > _MOST_COLOURS:
        raise LabelError(
            f"it is a picture of {len(colours)} colours and {_MOST_COLOURS} classes are the limit: save a "
            "label of one number for each pixel, without smooth edges"
        )
    table = np.concatenate([[0], colours]).astype(np.uint32)
    values = np.searchsorted(table, packed).astype(np.uint8)
    return values, {value: f"#{colour:06x}" for value, colour in enumerate(colours.tolist(), 1)}
