"""Opening a slide: OpenSlide for pyramids, tifffile for TIFFs that it cannot show, else as a picture.

And where tissue is on the overview of a slide.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openslide import OpenSlide, OpenSlideError, OpenSlideUnsupportedFormatError
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from lib.errors import BioSam2Error, ImageError, ImageNotFoundError
from lib.images.cache import ImageCache
from lib.images.file_formats import SLIDE_SUFFIXES
from lib.images.reading import reason
from lib.pathology.slide import Picture, Slide, plausible_mpp
from lib.pathology.tiff import TiffFacts, TiffSlide, damaged, inspect_tiff

logger = logging.getLogger(__name__)

__all__ = ["SLIDE_SUFFIXES", "TIFF_SUFFIXES", "Pyramid", "is_slide_file", "open_slide", "tissue_of"]

TIFF_SUFFIXES = (".tif", ".tiff")
_DICOM_SUFFIX = ".dcm"
# Micrometres per pixel of a scan with an objective of power 1: 40-fold scans have 0.25.
_MPP_AT_POWER_1 = 10.0


def is_slide_file(path: Path) -> bool:
    """Whether a file is opened region by region: by its name, or a DICOM whole slide."""
    suffix = path.suffix.lower()
    return suffix in SLIDE_SUFFIXES + TIFF_SUFFIXES or (suffix == _DICOM_SUFFIX and _is_dicom_slide(path))


def open_slide(path: Path | str, images: ImageCache, channels: Sequence[str] = ()) -> Slide:
    """Opens a slide or a picture; of a slide only one tile of the coarsest level is read.

    Args:
        path: OpenSlide's formats, tiled TIFF, OME-TIFF, a DICOM whole slide, or a picture (PNG, JPEG, TIFF).
        images: Cache that opens pictures, within its limit of voxels.
        channels: Names or numbers (from 0) of the channels of a fluorescence slide to show; empty for the
            nuclear one.

    Raises:
        ImageNotFoundError: The file does not exist.
        ImageError: The file is damaged, cut off, a volume, or has an unsupported format.
        ImageTooLargeError: The file is a picture, not a pyramid, with too many pixels.
        PromptError: A channel does not exist.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ImageNotFoundError(f"Unknown slide {path.name!r}: choose one that the datastore lists")
    if suffix in TIFF_SUFFIXES:
        facts = inspect_tiff(path)
        slide = _open_tiff(path, facts, channels)
        if slide is not None:
            return slide
    elif is_slide_file(path):
        return _open_scan(path, channels)
    image = images.get(path)
    if image.shape[2] != 1:
        raise ImageError(
            f"{path.name} is a volume of {image.shape[2]} slices; this model needs a picture or a slide"
        )
    return Picture(image)


class Pyramid(Slide):
    """A slide that OpenSlide reads, in the coordinates that QuPath and large_image use.

    Both count from ``openslide.bounds-x`` and ``bounds-y`` where a scanner (MIRAX, Leica, Ventana) gives
    them, and show nothing outside the bounds.

    Args:
        path: File.

    Raises:
        OpenSlideError: The file cannot be opened, or its coarsest level cannot be decoded.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = OpenSlide(path)
        facts = self._file.properties
        self._corner = int(facts.get("openslide.bounds-x", 0)), int(facts.get("openslide.bounds-y", 0))
        rest = (side - start for side, start in zip(self._file.dimensions, self._corner, strict=True))
        names = ("openslide.bounds-width", "openslide.bounds-height")
        width, height = (int(facts.get(name, side)) for name, side in zip(names, rest, strict=True))
        super().__init__(width, height, tuple(self._file.level_downsamples), _micrometres(facts))
        # Tiles of an unsupported compression fail only when one of them is read.
        self._file.read_region(self._corner, self._file.level_count - 1, (1, 1))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read(self, x: int, y: int, level: int, columns: int, rows: int) -> NDArray[np.uint8]:
        left, top = self._corner
        try:
            pixels = self._file.read_region((left + x, top + y), level, (columns, rows))
        except OpenSlideError as error:
            raise damaged(self._path, reason(error, self._path)) from error
        # What was never scanned is transparent; on glass it would be white.
        white = Image.new("RGBA", pixels.size, "white")
        return np.asarray(Image.alpha_composite(white, pixels).convert("RGB"))


def _is_dicom_slide(path: Path) -> bool:
    """Whether OpenSlide takes a DICOM file for a whole slide."""
    try:
        return bool(OpenSlide.detect_format(path))
    except OpenSlideError:
        return False


def _open_tiff(path: Path, facts: TiffFacts, channels: Sequence[str]) -> Slide | None:
    """The TIFF as a slide; None for a plain picture.

    OpenSlide would show the upper 8 bits of deeper greys, which are dark, and the first of several channels.
    """
    if facts.bits == 8 and facts.channels == 1 and not facts.is_webp:
        try:
            return Pyramid(path)
        except OpenSlideUnsupportedFormatError:
            pass
        except OpenSlideError as error:
            raise damaged(path, reason(error, path)) from error
    return TiffSlide(path, channels) if facts.is_tiled or facts.channels > 1 else None


def _open_scan(path: Path, channels: Sequence[str]) -> Slide:
    try:
        return Pyramid(path)
    except OpenSlideUnsupportedFormatError as error:
        inspect_tiff(path)  # says so where the file is cut off
        raise damaged(path, "OpenSlide does not support its format") from error
    except OpenSlideError as error:
        why = reason(error, path)
        if path.suffix.lower() != ".svs" or not inspect_tiff(path).is_webp:
            raise damaged(path, why) from error
    return TiffSlide(path, channels)


def _micrometres(facts: Mapping[str, str]) -> float | None:
    """Micrometres per pixel: as measured, else as the objective's power promises."""
    sizes = [facts.get(f"openslide.mpp-{axis}") for axis in "xy"]
    if (measured := plausible_mpp(*sizes)) is not None:
        return measured
    try:
        return plausible_mpp(_MPP_AT_POWER_1 / float(facts["openslide.objective-power"]))
    except (KeyError, ValueError, ZeroDivisionError):
        return None


# Longer side of the overview in pixels.
OVERVIEW_SIDE = 1024
# Smallest difference between tissue and glass in grey levels: less is noise and dirt.
_LEAST_CONTRAST = 8.0
# Largest picture that is opened for an overview, in pixels.
_MOST_PIXELS = 1 << 26


def tissue_mask(overview: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an overview differs from glass, or from the dark ground of fluorescence.

    Args:
        overview: uint8 (H, W, 3).

    Returns:
        bool (H, W); all false where nothing differs.
    """
    levels = ndimage.gaussian_filter(overview.astype(np.float32), (1, 1, 0))
    light = levels.mean(axis=2)
    low, middle, high = np.percentile(light, (1, 50, 99))
    # The ground is bright or dark, whichever extreme most of the slide is nearer to.
    ground = np.median(
        levels[light >= high - 4 if high - middle < middle - low else light <= low + 4], axis=0
    )
    difference = np.abs(levels - ground).max(axis=2)
    if float(difference.max()) < _LEAST_CONTRAST:
        return np.zeros(light.shape, bool)
    return np.asarray(difference > max(_LEAST_CONTRAST, threshold_otsu(difference) / 2))


def tissue_of(path: Path) -> NDArray[np.bool_] | None:
    """Tissue mask of a slide; None for other images, and where there is no readable overview."""
    if not is_slide_file(path):
        return None
    try:
        with open_slide(path, ImageCache(0, _MOST_PIXELS)) as slide:
            mask = tissue_mask(slide.overview(OVERVIEW_SIDE))
    except BioSam2Error as error:
        logger.warning("No tissue mask of %s: %s", path.name, error)
        return None
    return mask if mask.any() else None
