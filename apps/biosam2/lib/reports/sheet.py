"""A contact sheet: images in rows and columns, with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lib.palette import BLACK, GREY, WHITE, Colour, colour_of
from lib.reports.overlay import Frame

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


def contact_sheet(
    rows: Rows,
    *,
    heading: str = "",
    columns: Sequence[str] = (),
    legend: Legend = (),
) -> Frame:
    """Draws tiles in a grid. A row is as high as its highest tile, all columns as wide as the widest tile.

    Args:
        rows: Tiles per row; None leaves a cell empty, and rows may differ in length.
        heading: Text above everything.
        columns: Column titles.
        legend: Entries below the heading: names in ``MASK_COLOURS``, or texts with RGB levels.

    Returns:
        uint8 ``(H, W, 3)`` on white.

    Raises:
        ValueError: there is no tile, or there are more titles than columns.
    """
    if not any(tile is not None for row in rows for tile in row):
        raise ValueError("A contact sheet needs at least one tile")
    entries = [(entry, colour_of(entry)) if isinstance(entry, str) else entry for entry in legend]
    layout = _Layout(rows, bool(heading), bool(columns), entries)
    if len(columns) > layout.columns:
        raise ValueError(f"{len(columns)} titles for {layout.columns} columns: use at most one per column")
    sheet = Image.new("RGB", (layout.width, layout.height), WHITE)
    _write_titles(ImageDraw.Draw(sheet), layout, heading, columns, entries)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            if tile is not None:
                _place(sheet, tile, layout, down, across)
    return np.asarray(sheet)


class _Layout:
    """Positions and sizes in pixels."""

    def __init__(
        self, rows: Rows, heading: bool, titles: bool, entries: Sequence[tuple[str, Colour]]
    ) -> None:
        self.columns = max(len(row) for row in rows)
        self.cell_width = max(tile.image.shape[1] for row in rows for tile in row if tile is not None)
        self.legend_top = GAP + heading * (HEADING + GAP)
        self.titles_top = self.legend_top + bool(entries) * (TEXT + GAP)
        top = self.titles_top + titles * (TEXT + GAP)
        self.tops, self.heights = [], []
        for row in rows:
            tiles = [tile for tile in row if tile is not None]
            height = max((tile.image.shape[0] for tile in tiles), default=0)
            lines = max((len(tile.caption.splitlines()) for tile in tiles), default=0)
            self.tops.append(top)
            self.heights.append(height)
            top += height + lines * (TEXT + _LEADING) + 2 * GAP
        font = ImageFont.load_default(TEXT)
        legend = sum(_entry_width(text, font) for text, _ in entries)
        self.width = GAP + max(self.columns * (self.cell_width + GAP), legend)
        self.height = top

    def left(self, column: int) -> int:
        return GAP + column * (self.cell_width + GAP)


def _write_titles(
    pen: ImageDraw.ImageDraw,
    layout: _Layout,
    heading: str,
    columns: Sequence[str],
    entries: Sequence[tuple[str, Colour]],
) -> None:
    if heading:
        font = ImageFont.load_default(HEADING)
        pen.text((GAP, GAP), _fitted(heading, font, layout.width - 2 * GAP), BLACK, font)
    font, left, top = ImageFont.load_default(TEXT), GAP, layout.legend_top
    for text, colour in entries:
        pen.rectangle((left, top + 1, left + TEXT, top + TEXT + 1), colour, BLACK)
        pen.text((left + TEXT + GAP, top), text, BLACK, font)
        left += _entry_width(text, font)
    for number, title in enumerate(columns):
        pen.text(
            (layout.left(number), layout.titles_top), _fitted(title, font, layout.cell_width), BLACK, font
        )


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
