"""TIFF pixels that Pillow turns, cuts to 8 bits or does not open: orientation, sign, depth, inversion."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.itk import itk_name
from lib.images.medical_image import require_size

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
