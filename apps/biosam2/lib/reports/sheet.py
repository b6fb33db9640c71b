"""A contact sheet: images in rows and columns, with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lib.reports.colours import Colour, colour_of
from lib.reports.overlay import Frame

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
GAP = 8  # pixels around everything
TEXT, HEADING = 13, 18  # pixels
_LEADING = 4  # pixels between lines
_SHORTENED = "…"

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True, eq=False)
class Tile:
    """One image of a sheet.

    Attributes:
        image: uint8 ``(H, W, 3)``.
        caption: below it; lines are shortened to the tile's width.
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
    """Draws tiles in rows as high as the highest in them, and columns as wide as the widest of all.

    Args:
        rows: of tiles; None leaves a cell empty, and a row may be shorter than another.
        heading: above all.
        columns: a title for each column.
        legend: below the heading; names of colours, or texts with RGB levels.

    Returns:
        uint8 ``(H, W, 3)`` on white.

    Raises:
        ValueError: there is no tile, or more titles than columns.
    """
    if not any(tile is not None for row in rows for tile in row):
        raise ValueError("a contact sheet of no tile shows nothing: give one or more")
    entries = [(entry, colour_of(entry)) if isinstance(entry, str) else entry for entry in legend]
    layout = _Layout(rows, bool(heading), bool(columns), entries)
    if len(columns) > layout.columns:
        raise ValueError(f"{len(columns)} titles for {layout.columns} columns: give one for each")
    sheet = Image.new("RGB", (layout.width, layout.height), PAPER)
    pen = ImageDraw.Draw(sheet)
    if heading:
        font = ImageFont.load_default(HEADING)
        pen.text((GAP, GAP), _fitted(heading, font, layout.width - 2 * GAP), INK, font)
    font = ImageFont.load_default(TEXT)
    left = GAP
    for text, colour in entries:
        pen.rectangle((left, layout.legend_top + 1, left + TEXT, layout.legend_top + TEXT + 1), colour, INK)
        pen.text((left + TEXT + GAP, layout.legend_top), text, INK, font)
        left += _entry_width(text, font)
    for number, title in enumerate(columns):
        pen.text((layout.left(number), layout.titles_top), _fitted(title, font, layout.cell_width), INK, font)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            if tile is not None:
                _place(sheet, tile, layout, down, across)
    return np.asarray(sheet)


class _Layout:
    """Where everything lies, in pixels."""

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


def _place(sheet: Image.Image, tile: Tile, layout: _Layout, down: int, across: int) -> None:
    left, top, height = layout.left(across), layout.tops[down], layout.heights[down]
    image = Image.fromarray(tile.image)
    sheet.paste(image, (left + (layout.cell_width - image.width) // 2, top + (height - image.height) // 2))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for number, line in enumerate(tile.caption.splitlines()):
        below = top + height + _LEADING + number * (TEXT + _LEADING)
        pen.text((left, below), _fitted(line, font, layout.cell_width), FAINT if number else INK, font)


def _entry_width(text: str, font: Font) -> int:
    """Of an entry of the legend and the gap after it."""
    return TEXT + 3 * GAP + math.ceil(font.getlength(text))


def _fitted(text: str, font: Font, width: int) -> str:
    """The text, shortened to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + _SHORTENED) > width:
        text = text[:-1]
    return text + _SHORTENED
