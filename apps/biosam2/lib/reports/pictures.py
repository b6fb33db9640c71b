"""Pictures for reports: masks drawn on frames, and contact sheets of them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from lib.palette import BLACK, GREY, WHITE, Colour, colour_of

Frame = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Masks = Mapping[str, Mask] | Mapping[Colour, Mask] | Mapping[str | Colour, Mask]

FILL = 0.12  # opacity: the object stands out and the image below stays visible
# Dash length in pixels for the colours of coinciding outlines.
_DASH = 4


def outlined(frame: Frame, masks: Masks, *, side: int | None = None, fill: float = FILL) -> Frame:
    """Draws masks on a copy of a frame.

    An outline consists of the object's outermost pixels. Coinciding outlines alternate their colours in
    dashes, so that none hides another.

    Args:
        frame: uint8 ``(H, W, 3)``.
        masks: bool ``(H, W)`` by colour name ("truth", "before" or "after") or RGB levels.
        side: Longer side of the result in pixels; default: the frame's. The line is one pixel wide.
        fill: Opacity inside the mask, 0 to 1.

    Returns:
        uint8 ``(H, W, 3)``, resized in proportion.
    """
    size = _scaled(frame.shape[:2], side)
    pixels = _resized_frame(frame, size).astype(np.float64)
    colours = [np.asarray(colour_of(key), np.float64) for key in masks]
    resized = [_resized_mask(mask, size) for mask in masks.values()]
    for colour, mask in zip(colours, resized, strict=True):
        pixels[mask] += fill * (colour - pixels[mask])
    _draw_lines(pixels, colours, [edge(mask) for mask in resized])
    return np.rint(pixels).astype(np.uint8)


def edge(mask: Mask, width: int = 1) -> Mask:
    """Outermost pixels of an object ``(H, W)``, ``width`` deep: at background or at the image's edge."""
    outline: Mask = mask & ~binary_erosion(mask, iterations=width)
    return outline


def png_bytes(image: Frame) -> bytes:
    """Content of a PNG file for an image ``(H, W, 3)``."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_lines(pixels: NDArray[np.float64], colours: Sequence[NDArray], edges: Sequence[Mask]) -> None:
    """Draws every line in its colour; shared pixels alternate between the colours."""
    if not edges:
        return
    crossing = np.sum(edges, axis=0)
    rows, columns = np.indices(crossing.shape, sparse=True)
    turn = (rows + columns) // _DASH % np.maximum(crossing, 1)
    before = np.zeros_like(crossing)
    for colour, line in zip(colours, edges, strict=True):
        pixels[line & (before == turn)] = colour
        before += line


def _scaled(shape: tuple[int, ...], side: int | None) -> tuple[int, int]:
    """Width and height of the result."""
    height, width = shape
    scale = 1.0 if side is None else side / max(height, width)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _resized_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    if size == frame.shape[1::-1]:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _resized_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask in another size, with a smooth edge instead of enlarged pixel steps."""
    if size == mask.shape[1::-1]:
        return mask
    levels = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(levels) > 127


GAP = 8  # pixels around everything
TEXT, HEADING = 13, 18  # pixels
_LEADING = 4  # pixels between lines
_SHORTENED = "…"

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True, eq=False)
class Tile:
    """One image of a contact sheet.

    Attributes:
        image: uint8 ``(H, W, 3)``.
        caption: Text below the image; lines are shortened to the tile's width.
    """

    image: Frame
    caption: str = ""


Rows = Sequence[Sequence[Tile | None]]
Legend = Sequence[str | tuple[str, Colour]]


def contact_sheet(rows: Rows, *, heading: str = "", legend: Legend = ()) -> Frame:
    """Draws tiles in a grid. A row is as high as its highest tile, all columns as wide as the widest tile.

    Args:
        rows: Tiles per row, at least one in all; None leaves a cell empty, and rows may differ in length.
        heading: Text above everything.
        legend: Entries below the heading: names in ``MASK_COLOURS``, or texts with RGB levels.

    Returns:
        uint8 ``(H, W, 3)`` on white.
    """
    entries = [(entry, colour_of(entry)) if isinstance(entry, str) else entry for entry in legend]
    layout = _Layout(rows, bool(heading), entries)
    sheet = Image.new("RGB", (layout.width, layout.height), WHITE)
    _write_titles(ImageDraw.Draw(sheet), layout, heading, entries)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            if tile is not None:
                _place(sheet, tile, layout, down, across)
    return np.asarray(sheet)


class _Layout:
    """Positions and sizes in pixels."""

    def __init__(self, rows: Rows, heading: bool, entries: Sequence[tuple[str, Colour]]) -> None:
        tiles = [[tile for tile in row if tile is not None] for row in rows]
        self.cell_width = max(tile.image.shape[1] for row in tiles for tile in row)
        self.heights = [max((tile.image.shape[0] for tile in row), default=0) for row in tiles]
        self.legend_top = GAP + heading * (HEADING + GAP)
        self.tops, top = [], self.legend_top + bool(entries) * (TEXT + GAP)
        for row, height in zip(tiles, self.heights, strict=True):
            self.tops.append(top)
            lines = max((len(tile.caption.splitlines()) for tile in row), default=0)
            top += height + lines * (TEXT + _LEADING) + 2 * GAP
        font = ImageFont.load_default(TEXT)
        legend = sum(_entry_width(text, font) for text, _ in entries)
        self.width = GAP + max(max(map(len, rows)) * (self.cell_width + GAP), legend)
        self.height = top

    def left(self, column: int) -> int:
        return GAP + column * (self.cell_width + GAP)


def _write_titles(
    pen: ImageDraw.ImageDraw, layout: _Layout, heading: str, entries: Sequence[tuple[str, Colour]]
) -> None:
    if heading:
        font = ImageFont.load_default(HEADING)
        pen.text((GAP, GAP), _fitted(heading, font, layout.width - 2 * GAP), BLACK, font)
    font, left, top = ImageFont.load_default(TEXT), GAP, layout.legend_top
    for text, colour in entries:
        pen.rectangle((left, top + 1, left + TEXT, top + TEXT + 1), colour, BLACK)
        pen.text((left + TEXT + GAP, top), text, BLACK, font)
        left += _entry_width(text, font)


def _place(sheet: Image.Image, tile: Tile, layout: _Layout, down: int, across: int) -> None:
    left, top, height = layout.left(across), layout.tops[down], layout.heights[down]
    image = Image.fromarray(tile.image)
    sheet.paste(image, (left + (layout.cell_width - image.width) // 2, top + (height - image.height) // 2))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for number, line in enumerate(tile.caption.splitlines()):
        below = top + height + _LEADING + number * (TEXT + _LEADING)
        pen.text((left, below), _fitted(line, font, layout.cell_width), GREY if number else BLACK, font)


def _entry_width(text: str, font: Font) -> int:
    """Width in pixels of a legend entry and the gap after it."""
    return TEXT + 3 * GAP + math.ceil(font.getlength(text))


def _fitted(text: str, font: Font, width: int) -> str:
    """The text, shortened to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + _SHORTENED) > width:
        text = text[:-1]
    return text + _SHORTENED
