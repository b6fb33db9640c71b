"""PNG, JPEG, BMP and TIFF images, and TIFF stacks."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from PIL import Image

from lib.errors import ImageError, ImageTooLargeError
from lib.images.itk import itk_name
from lib.images.medical_image import LPS_IDENTITY, Voxels, require_size

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


_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 274
# Compressions that are unpacked here; libtiff, in Pillow and ITK, knows the others.
_PLAIN, _DEFLATE = 1, (8, 32946)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
# Photographs of paper and of palettes, YCbCr, CMYK and L*a*b*: Pillow makes colours of them.
_GREYS_AND_COLOURS = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF or BigTIFF, whatever its name."""
    with path.open("rb") as file:
        return file.read(4) in _MARKS


def tiff_numbers(path: Path, max_voxels: int) -> NDArray | None:
    """Numbers of all pages, as they are stored: rows from the top, columns from the left.

    Args:
        path: TIFF file.
        max_voxels: Limit of pixels, of all pages together.

    Returns:
        (K, H, W) or (K, H, W, 3) of the file's own type: all pages of one size, or the first page where the
        next is a thumbnail or a pyramid. WhiteIsZero is inverted. None where Pillow reads the file as it is:
        colours that are no red, green and blue, and compressions of 8-bit levels.

    Raises:
        ImageError: Pages of several kinds, channels that are no colours, a compression of deep pixels that is
            not known, or a file that is cut off.
        ImageTooLargeError: By the header, before pixels are read.
    """
    with tifffile.TiffFile(path) as file:
        pages = _equal_pages(file)
        page = pages[0]
        samples, depth = page.samplesperpixel, -(-page.bitspersample // 8)
        require_size((page.imagewidth, page.imagelength, len(pages)), max_voxels, samples * depth)
        is_levels = page.bitspersample <= 8 and page.sampleformat == 1
        if page.photometric not in _GREYS_AND_COLOURS:
            return None
        _require_colours(page)
        if page.compression == _PLAIN or (page.compression in _DEFLATE and not is_levels):
            for one in pages:
                _require_whole(one, path)
            pixels = np.stack([one.asarray() for one in pages])
        elif is_levels:
            return None
        else:
            pixels = _by_libtiff(path, page, len(pages))
        if page.planarconfig == 2 and samples > 1:
            pixels = np.moveaxis(pixels, 1, -1)
    if pixels.ndim == 4:
        pixels = pixels[..., :3] if pixels.shape[3] >= 3 else pixels[..., 0]
    return _inverted(pixels) if page.photometric == _WHITE_IS_ZERO else pixels


def _equal_pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """All pages, or the first one where the second has another size."""
    pages: list[Any] = list(file.pages)
    kinds = [(page.shape, page.dtype, page.photometric, page.compression) for page in pages]
    if len(pages) < 2 or kinds[1][0] != kinds[0][0]:
        return pages[:1]
    odd = next((number for number, kind in enumerate(kinds, 1) if kind != kinds[0]), None)
    if odd is not None:
        raise ImageError(
            f"page {odd} of its {len(pages)} pages has another size or kind than the first: save the stack "
            "as one volume (NIfTI or NRRD), or one page of it"
        )
    return pages


def without_orientation(path: Path) -> BinaryIO:
    """The file with its orientation tag set to 1, for readers that turn pixels by it."""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        for page in file.pages:
            tag = getattr(page, "tags", {}).get(_ORIENTATION)
            if tag is not None:
                one = (1).to_bytes(2, "little" if file.byteorder == "<" else "big")
                content[tag.valueoffset : tag.valueoffset + 2] = one
    return io.BytesIO(content)


def _require_colours(page: tifffile.TiffPage) -> None:
    samples = page.samplesperpixel
    if samples <= 2 or (page.photometric == _RGB and samples <= 4):
        return
    raise ImageError(
        f"the image has {samples} channels; what can be opened is one channel, or red, green and blue: save "
        "one channel, or the colours as they are shown, as a file of its own"
    )


def _require_whole(page: tifffile.TiffPage, path: Path) -> None:
    """Refuses pixels that lie beyond the end of the file, and parts that unpack to more than their size."""
    size = path.stat().st_size
    parts: Sequence[tuple[int, int]] = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if max((offset + count for offset, count in parts), default=0) > size:
        raise ImageError(f"it is cut off after {size} bytes: copy or export it again")
    if page.compression == _PLAIN:
        return
    limit = int(np.prod(page.chunks)) * (page.bitspersample // 8)
    with path.open("rb") as file:
        for offset, count in parts:
            file.seek(offset)
            unpacker = zlib.decompressobj()
            unpacker.decompress(file.read(count), limit + 1)
            if unpacker.unconsumed_tail:
                raise ImageError(f"a part of it unpacks to more than its {limit} bytes: export it again")


def _by_libtiff(path: Path, page: tifffile.TiffPage, count: int) -> NDArray:
    """Deep pixels through ITK, which makes 8-bit levels of some kinds: those are refused."""
    try:
        found = sitk.GetArrayFromImage(sitk.ReadImage(itk_name(path), imageIO="TIFFImageIO"))
    except RuntimeError as error:
        raise _unknown(page) from error
    size = (page.imagelength, page.imagewidth)
    found = found[None] if found.shape[:2] == size else found[:count]
    if found.dtype != page.dtype or found.shape[:3] != (count, *size):
        raise _unknown(page)
    return found


def _unknown(page: tifffile.TiffPage) -> ImageError:
    compression = getattr(page.compression, "name", page.compression)
    return ImageError(
        f"its {page.bitspersample}-bit pixels are compressed as {compression}, which is not read here: save "
        "it without compression"
    )


def _inverted(pixels: NDArray) -> NDArray:
    """Pixels of a file in which 0 is white."""
    if pixels.dtype.kind == "f":
        return pixels.max() + pixels.min() - pixels
    return ~pixels
