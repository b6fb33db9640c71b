"""Opening a slide: through OpenSlide where it is a pyramid, as a picture where it is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from openslide import OpenSlide, OpenSlideError, OpenSlideUnsupportedFormatError
from PIL import Image

from lib.errors import ImageError, ImageNotFoundError
from lib.images.cache import ImageCache
from lib.images.reading import SLIDE_SUFFIXES, reason
from lib.pathology.slide import Picture, Slide

__all__ = ["SLIDE_SUFFIXES", "TIFF_SUFFIXES", "Pyramid", "open_slide"]

TIFF_SUFFIXES = (".tif", ".tiff")


def open_slide(path: Path | str, images: ImageCache) -> Slide:
    """Opens a slide or a picture; of a slide no pixel is read yet.

    Args:
        path: of the file; OpenSlide's formats, tiled TIFF among them, and pictures (PNG, JPEG, plain TIFF).
        images: opens the pictures, within its limit of voxels.

    Raises:
        ImageNotFoundError: there is no such file.
        ImageError: the file is damaged, cut off, a volume, or of another kind.
        ImageTooLargeError: it is a picture, not a pyramid, with too many pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageNotFoundError(f"there is no slide {path.name!r}: choose one that the datastore lists")
    suffix = path.suffix.lower()
    if suffix in SLIDE_SUFFIXES or (suffix in TIFF_SUFFIXES and _has_8_bits(path)):
        try:
            return Pyramid(path)
        except OpenSlideUnsupportedFormatError as error:
            if suffix in SLIDE_SUFFIXES:
                _has_8_bits(path)  # where it was cut off, that is said
                raise _damaged(path, "OpenSlide does not know what it is") from error
        except OpenSlideError as error:
            raise _damaged(path, reason(error, path)) from error
    image = images.get(path)
    if image.shape[2] != 1:
        raise ImageError(
            f"{path.name} is a volume of {image.shape[2]} slices; this model needs a picture or a slide"
        )
    return Picture(image)


class Pyramid(Slide):
    """A file that OpenSlide opens.

    Args:
        path: of the file.

    Raises:
        OpenSlideError: it cannot be opened.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = OpenSlide(path)
        width, height = self._file.dimensions
        super().__init__(width, height, tuple(self._file.level_downsamples))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read(self, x: int, y: int, level: int, columns: int, rows: int) -> NDArray[np.uint8]:
        try:
            pixels = self._file.read_region((x, y), level, (columns, rows))
        except OpenSlideError as error:
            raise _damaged(self._path, reason(error, self._path)) from error
        # What was never scanned is transparent; on glass it would be white.
        white = Image.new("RGBA", pixels.size, "white")
        return np.asarray(Image.alpha_composite(white, pixels).convert("RGB"))


def _has_8_bits(path: Path) -> bool:
    """Whether a TIFF holds levels; of deeper greys OpenSlide would show the upper 8 bits, which are dark.

    Raises:
        ImageError: it was cut off, and libraries would show the rest as black.
    """
    size = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as file:
            first, pages = file.pages.first, len(file.pages)
            parts = zip(first.dataoffsets, first.databytecounts, strict=True)
            # The last page says where the next one begins, or 0.
            file.filehandle.seek(file.pages.next_page_offset)
            pointer = file.filehandle.read(file.tiff.offsetsize)
            bits = first.bitspersample
            is_cut = any(pointer) or max((start + count for start, count in parts), default=0) > size
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, OSError) as error:
        raise _damaged(path, reason(error, path)) from error
    if is_cut:
        raise _damaged(path, f"it is cut off after {size} bytes, in page {pages}")
    return bits == 8


def _damaged(path: Path, why: str) -> ImageError:
    return ImageError(f"{path.name} cannot be read as a slide: {why}; copy or export it again")
