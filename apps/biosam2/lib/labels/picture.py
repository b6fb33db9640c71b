"""Labels in pictures: PNG, TIFF and BMP, with one value or one colour for each object or class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lib.errors import LabelError
from lib.images.medical_image import MedicalImage
from lib.images.raster import is_tiff, open_raster, pages, tiff_numbers
from lib.labels.values import MOST_OBJECTS, LabelFile, most_voxels

# More colours than any list of classes has, and fewer than any photograph.
_MOST_COLOURS = 255
# Modes of Pillow with one number for each pixel; the others are converted to colours first.
_NUMBERS = ("1", "L", "I;16", "I;16L", "I;16B", "I", "F")


def read_picture_label(path: Path, image: MedicalImage) -> LabelFile:
    """Reads a picture, which has no geometry; array[x, y, k] is the pixel in column x and row y of page k.

    Greys are values. Of a picture with a palette the values are the palette's indices, unless the palette has
    nothing but greys. Of a picture in colours, black and transparent pixels are background and every other
    colour is a value, in ascending order of red, green, blue, and its name is ``#rrggbb``.

    Raises:
        LabelError: A JPEG, more than 255 colours, or a stack of colours.
        ImageError: An animation, or pages of several kinds.
        ImageTooLargeError: By the header, before pixels are read.
    """
    numbers = tiff_numbers(path, most_voxels(image)) if is_tiff(path) else None
    if numbers is not None and numbers.ndim == 3:
        return LabelFile(numbers.swapaxes(0, 2), None)
    with open_raster(path, most_voxels(image)) as opened:
        if opened.format == "JPEG":
            raise LabelError("it is a JPEG, which changes the values of labels: save it as PNG")
        found = [_pixels(page) for page in pages(opened)]
    if len(found) > 1 and any(names for _, names in found):
        raise LabelError("it is a stack of colours: save one number for each pixel, 0 for background")
    return LabelFile(np.stack([pixels for pixels, _ in found]).swapaxes(0, 2), None, found[0][1])


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
    """True if a palette has colours: a palette of greys means grey levels, not class numbers."""
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


# Fewer pieces of one class are one object in parts, such as two lungs or an organ cut by a vessel.
LEAST_PIECES = 3
# A piece is a speck, the slip of a brush, below so many pixels,
SPECK_PIXELS = 5
# or below that share of the typical piece. In three electron micrographs, with cells of up to 23,828 pixels,
# it takes pieces of up to 10 and leaves one of 12.
SPECK_SHARE = 0.003


def split_instances(array: NDArray) -> NDArray | None:
    """Numbers the pieces of a 2-D label of one class, if they are so many that they must be objects.

    A piece is connected by edges; cells that touch by a corner are two. Specks become background.

    Args:
        array: (I, J, 1), with one value besides 0.

    Returns:
        uint8 or uint16 of the same shape, pieces as 1, 2, 3 ...; None if there are fewer than three.

    Raises:
        LabelError: More than 65535 pieces.
    """
    pieces, count = ndimage.label(array[:, :, 0] != 0)
    if count < LEAST_PIECES:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = np.flatnonzero(sizes >= max(SPECK_PIXELS, SPECK_SHARE * _typical(sizes)))
    if len(kept) < LEAST_PIECES:
        return None
    if len(kept) > MOST_OBJECTS:
        raise LabelError(
            f"it has {len(kept)} separate pieces and {MOST_OBJECTS} objects are the limit: crop it"
        )
    dtype = np.uint8 if len(kept) <= np.iinfo(np.uint8).max else np.uint16
    numbers = np.zeros(count + 1, dtype=dtype)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return np.asfortranarray(numbers[pieces][:, :, None])


def _typical(sizes: NDArray) -> float:
    """Size of the piece that holds the median pixel: many specks do not make it small."""
    ascending = np.sort(sizes)
    return float(ascending[np.searchsorted(np.cumsum(ascending), ascending.sum() / 2)])
