"""Slides in TIFF files that OpenSlide cannot show: several channels, more than 8 bits, WebP tiles."""

from __future__ import annotations

import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from lib.errors import BioSam2Error, ImageError, PromptError
from lib.images.reading import reason
from lib.pathology.slide import Slide, plausible_mpp

_READING_ERRORS = (
    tifffile.TiffFileError,
    zlib.error,
    ValueError,
    IndexError,
    KeyError,
    OSError,
    TypeError,
    RuntimeError,
)
_WEBP = (34927, 50001)
# Pages whose tiles are compared with the length of the file.
_CHECKED_PAGES = 64
# Names that channels of nuclear stains have.
_NUCLEAR = re.compile(r"dapi|hoechst|draq|nucle|syto|propidium", re.IGNORECASE)
# Shown channels of a composite image, as red, green and blue.
MOST_CHANNELS = 3
# Percentiles of a channel that become black and white: hot pixels would leave the rest dark.
_BLACK, _WHITE = 0.5, 99.8
# Side of the squares that the percentiles are taken from, and their number along each axis of the slide.
_SAMPLE_SIDE, _SAMPLES = 256, 4
_OME_UNITS = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


@dataclass(frozen=True)
class TiffFacts:
    """Header of a TIFF.

    Attributes:
        bits: Bits of a sample.
        channels: Number of separate channels; 1 for RGB.
        is_tiled: Whether the first page has tiles.
        is_webp: Whether its tiles are WebP, which OpenSlide cannot decode.
    """

    bits: int
    channels: int
    is_tiled: bool
    is_webp: bool


def inspect_tiff(path: Path) -> TiffFacts:
    """Reads the header of a TIFF.

    Raises:
        ImageError: The file is no TIFF, or cut off: libraries would show the rest as black.
    """
    size = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as file:
            first, pages = file.pages.first, len(file.pages)
            # The last page holds the position of the next one, or 0.
            file.filehandle.seek(file.pages.next_page_offset)
            pointer = file.filehandle.read(file.tiff.offsetsize)
            is_cut = any(pointer) or _end_of_tiles(file) > size
            bits = first.bitspersample
            deepest = int(max(bits) if isinstance(bits, tuple) else bits)
            facts = TiffFacts(deepest, _channels(file), bool(first.is_tiled), first.compression in _WEBP)
    except _READING_ERRORS as error:
        raise damaged(path, reason(error, path)) from error
    if is_cut:
        raise damaged(path, f"it is cut off after {size} bytes, in page {pages}")
    return facts


def damaged(path: Path, why: str) -> ImageError:
    """Error for a slide that cannot be read."""
    return ImageError(f"{path.name} cannot be read as a slide: {why}; copy or export it again")


class TiffSlide(Slide):
    """A TIFF, tile by tile.

    Channels are shown as grey levels, or up to three of them as red, green and blue. Other depths than 8 bits
    are scaled between two percentiles of each channel, the same for the whole slide.

    Args:
        path: File with one plane: no stack, no time series.
        channels: Names or numbers (from 0) of the channels to show; empty for the first with the name of a
            nuclear stain, else the first one.

    Raises:
        ImageError: The file is a stack, or its tiles cannot be decoded.
        PromptError: A channel does not exist.
    """

    def __init__(self, path: Path, channels: Sequence[str] = ()):
        self._path = path
        self._file = tifffile.TiffFile(path)
        try:
            self._index(channels)
        except BaseException as error:
            self._file.close()
            if isinstance(error, _READING_ERRORS) and not isinstance(error, BioSam2Error):
                raise damaged(path, reason(error, path)) from error
            raise

    def _index(self, channels: Sequence[str]) -> None:
        """Lists the levels' pages, chooses the channels, and decodes a tile of the coarsest level."""
        series = self._file.series[0]
        self._levels = [_pages(level) for level in series.levels]
        sizes = [(level[0].imagewidth, level[0].imagelength) for level in self._levels]
        steps = tuple(sizes[0][0] / width for width, _ in sizes)
        super().__init__(*sizes[0], steps, _ome_mpp(self._file))
        self._planes = self._choose(series, channels)
        self._decode(self._levels[-1][0], 0)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _choose(self, series: Any, asked: Sequence[str]) -> list[int]:
        """Indices of the channels to show; empty for RGB."""
        count = _channels(self._file)
        if len(series.shape) > 2 and any(
            size > 1 for axis, size in zip(series.axes, series.shape, strict=True) if axis in "ZTQI"
        ):
            shape = f"{series.shape} ({series.axes})"
            raise ImageError(f"{self._path.name} is a stack of shape {shape}: export one plane of it")
        if count == 1:
            return []
        names = _channel_names(self._file, count)
        if asked:
            return [_channel_index(name, names, self._path) for name in asked[:MOST_CHANNELS]]
        return [next((index for index, name in enumerate(names) if _NUCLEAR.search(name)), 0)]

    def _read(self, x: int, y: int, level: int, columns: int, rows: int) -> NDArray[np.uint8]:
        step = self.downsamples[level]
        left, top = round(x / step), round(y / step)
        try:
            pixels = self._region(level, left, top, columns, rows)
        except _READING_ERRORS as error:
            raise damaged(self._path, reason(error, self._path)) from error
        shown = self._as_levels(pixels)
        page = self._levels[level][0]
        is_outside = np.ones((rows, columns), bool)
        below, right = max(0, page.imagelength - top), max(0, page.imagewidth - left)
        is_outside[max(0, -top) : below, max(0, -left) : right] = False
        shown[is_outside] = 255
        return shown

    def _region(self, level: int, x: int, y: int, columns: int, rows: int) -> NDArray:
        """(rows, columns, samples) in the file's own type; zeros outside the level."""
        pages = self._levels[level]
        if not self._planes:
            return self._page_region(pages[0], x, y, columns, rows)
        if len(pages) == 1:
            return self._page_region(pages[0], x, y, columns, rows)[..., self._planes]
        parts = [self._page_region(pages[index], x, y, columns, rows)[..., :1] for index in self._planes]
        return np.concatenate(parts, axis=2)

    def _page_region(self, page: Any, x: int, y: int, columns: int, rows: int) -> NDArray:
        width, length = _tile_size(page)
        across, down = -(-page.imagewidth // width), -(-page.imagelength // length)
        is_planar = page.planarconfig == 2 and page.samplesperpixel > 1
        out = np.zeros((rows, columns, page.samplesperpixel), page.dtype)
        for row in range(max(0, y // length), min(down, -(-(y + rows) // length))):
            for column in range(max(0, x // width), min(across, -(-(x + columns) // width))):
                for plane in range(page.samplesperpixel if is_planar else 1):
                    tile = self._decode(page, (plane * down + row) * across + column)
                    if tile is not None:
                        target = out[..., plane : plane + 1] if is_planar else out
                        _paste(target, tile, column * width - x, row * length - y)
        return out

    def _decode(self, page: Any, index: int) -> NDArray | None:
        """(h, w, samples) of one tile; None where the file leaves it out."""
        count = page.databytecounts[index]
        if not count:
            return None
        self._file.filehandle.seek(page.dataoffsets[index])
        data = self._file.filehandle.read(count)
        if page.compression in _WEBP:
            return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        tile, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        return None if tile is None else tile[0, : shape[1], : shape[2]]

    def _as_levels(self, pixels: NDArray) -> NDArray[np.uint8]:
        """uint8 (h, w, 3) to be shown."""
        if pixels.dtype != np.uint8 or self._planes:
            low, high = self._range
            scaled = (pixels.astype(np.float32) - low) / (high - low) * 255
            pixels = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        if pixels.shape[2] in (1, 2) and len(self._planes) < 2:
            return np.repeat(pixels[..., :1], 3, axis=2)
        shown = np.zeros((*pixels.shape[:2], 3), np.uint8)
        shown[..., : pixels.shape[2]] = pixels[..., :3]
        return shown

    @cached_property
    def _range(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Values of each shown channel that become black and white, from squares over the coarsest level."""
        samples = [part.reshape(-1, part.shape[2]) for part in self._samples()]
        low, high = np.percentile(np.concatenate(samples), (_BLACK, _WHITE), axis=0).astype(np.float32)
        return low, np.maximum(high, low + 1)

    def _samples(self) -> Iterator[NDArray]:
        level = len(self._levels) - 1
        page = self._levels[level][0]
        width, height = min(page.imagewidth, _SAMPLE_SIDE), min(page.imagelength, _SAMPLE_SIDE)
        for y in np.linspace(0, page.imagelength - height, _SAMPLES).astype(int):
            for x in np.linspace(0, page.imagewidth - width, _SAMPLES).astype(int):
                yield self._region(level, int(x), int(y), width, height)


def _end_of_tiles(file: tifffile.TiffFile) -> int:
    """Position after the last byte of the first pages' tiles; further pages are planes of the same kind."""
    ends = [0]
    for page in itertools.islice(file.pages, _CHECKED_PAGES):
        parts = zip(page.dataoffsets, page.databytecounts, strict=True)
        ends.append(max((start + count for start, count in parts), default=0))
    return max(ends)


def _pages(level: Any) -> list[Any]:
    pages = [page for page in level.pages if page is not None]
    return [getattr(page, "aspage", lambda page=page: page)() for page in pages]


def _tile_size(page: Any) -> tuple[int, int]:
    """Width and height of the page's tiles, or of its strips."""
    if page.is_tiled:
        return int(page.tilewidth), int(page.tilelength)
    return int(page.imagewidth), int(min(page.rowsperstrip, page.imagelength))


def _paste(target: NDArray, tile: NDArray, x: int, y: int) -> None:
    """Copies a tile to (x, y) of a target, as far as it lies on it."""
    rows, columns = target.shape[:2]
    part = tile[max(0, -y) : max(0, rows - y), max(0, -x) : max(0, columns - x)]
    if part.size:
        top, left = max(0, y), max(0, x)
        target[top : top + part.shape[0], left : left + part.shape[1]] = part


def _channels(file: tifffile.TiffFile) -> int:
    """Number of separate channels; 1 for grey and RGB."""
    series = file.series[0]
    axes = dict(zip(series.axes, series.shape, strict=True))
    return int(axes.get("C", 1))


def _ome_pixels(file: tifffile.TiffFile) -> dict[str, Any]:
    """Attributes of the first image's ``Pixels`` in OME-XML, and its channels; empty without any."""
    if not file.is_ome or not file.ome_metadata:
        return {}
    images = tifffile.xml2dict(file.ome_metadata).get("OME", {}).get("Image", {})
    first = images[0] if isinstance(images, list) else images
    pixels: dict[str, Any] = first.get("Pixels", {})
    return pixels


def _ome_mpp(file: tifffile.TiffFile) -> float | None:
    pixels = _ome_pixels(file)
    sizes = []
    for axis in "XY":
        unit = _OME_UNITS.get(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        size = pixels.get(f"PhysicalSize{axis}")
        if unit is None or size is None:
            return None
        sizes.append(float(size) * unit)
    return plausible_mpp(*sizes)


def _channel_names(file: tifffile.TiffFile, count: int) -> list[str]:
    listed = _ome_pixels(file).get("Channel", [])
    channels = listed if isinstance(listed, list) else [listed]
    names = [str(channel.get("Name", "")) for channel in channels]
    return (names + [""] * count)[:count]


def _channel_index(name: str, names: Sequence[str], path: Path) -> int:
    lowered = [known.lower() for known in names]
    if name.lower() in lowered:
        return lowered.index(name.lower())
    if name.isdigit() and int(name) < len(names):
        return int(name)
    known = ", ".join(f"{index} {known}".strip() for index, known in enumerate(names))
    raise PromptError(f"Unknown channel {name!r} of {path.name} (available: {known})")
