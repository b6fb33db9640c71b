"""A contact sheet: images in rows and columns, with captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lib.report.colours import Colour, colour_of
from lib.report.overlay import Frame

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


def contact_sheet(
    rows: Sequence[Sequence[Tile | None]],
    *,
    heading: str = "",
    columns: Sequence[str] = (),
    legend: Sequence[str] | Sequence[tuple[str, Colour]] = (),
) -> Frame:
    """Draws tiles in rows and columns, each in the middle of a cell as large as the largest.

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
    tiles = [tile for row in rows for tile in row if tile is not None]
    if not tiles:
        raise ValueError("a contact sheet of no tile shows nothing: give one or more")
    layout = _Layout(rows, tiles, bool(heading), bool(columns), bool(legend))
    if len(columns) > layout.columns:
        raise ValueError(f"{len(columns)} titles for {layout.columns} columns: give one for each")
    sheet = Image.new("RGB", (layout.width, layout.height), PAPER)
    pen = ImageDraw.Draw(sheet)
    if heading:
        font = ImageFont.load_default(HEADING)
        pen.text((GAP, GAP), _fitted(heading, font, layout.width - 2 * GAP), INK, font)
    if legend:
        _draw_legend(pen, layout.legend_top, legend)
    font = ImageFont.load_default(TEXT)
    for number, title in enumerate(columns):
        pen.text((layout.left(number), layout.titles_top), _fitted(title, font, layout.cell_width), INK, font)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            if tile is not None:
                _place(sheet, pen, tile, layout, down, across)
    return np.asarray(sheet)


class _Layout:
    """Where everything lies, in pixels."""

    def __init__(
        self,
        rows: Sequence[Sequence[Tile | None]],
        tiles: Iterable[Tile],
        heading: bool,
        titles: bool,
        legend: bool,
    ) -> None:
        tiles = list(tiles)
        self.columns = max(len(row) for row in rows)
        self.cell_width = max(tile.image.shape[1] for tile in tiles)
        self.tile_height = max(tile.image.shape[0] for tile in tiles)
        lines = max(len(tile.caption.splitlines()) for tile in tiles)
        self.cell_height = self.tile_height + lines * (TEXT + _LEADING)
        self.legend_top = GAP + heading * (HEADING + GAP)
        self.titles_top = self.legend_top + legend * (TEXT + GAP)
        self._top = self.titles_top + titles * (TEXT + _LEADING)
        self.width = GAP + self.columns * (self.cell_width + GAP)
        self.height = self._top + len(rows) * (self.cell_height + GAP)

    def left(self, column: int) -> int:
        return GAP + column * (self.cell_width + GAP)

    def top(self, row: int) -> int:
        return self._top + row * (self.cell_height + GAP)


def _place(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, layout: _Layout, down: int, across: int
) -> None:
    left, top = layout.left(across), layout.top(down)
    height, width = tile.image.shape[:2]
    image = Image.fromarray(tile.image)
    sheet.paste(image, (left + (layout.cell_width - width) // 2, top + (layout.tile_height - height) // 2))
    font = ImageFont.load_default(TEXT)
    for number, line in enumerate(tile.caption.splitlines()):
        below = top + layout.tile_height + _LEADING + number * (TEXT + _LEADING)
        pen.text((left, below), _fitted(line, font, layout.cell_width), FAINT if number else INK, font)


def _draw_legend(
    pen: ImageDraw.ImageDraw, top: int, legend: Sequence[str] | Sequence[tuple[str, Colour]]
) -> None:
    font = ImageFont.load_default(TEXT)
    left = GAP
    for entry in legend:
        text, colour = (entry, colour_of(entry)) if isinstance(entry, str) else entry
        pen.rectangle((left, top + 1, left + TEXT, top + TEXT + 1), colour, INK)
        left += TEXT + GAP
        pen.text((left, top), text, INK, font)
        left += int(pen.textlength(text, font)) + 2 * GAP


def _fitted(text: str, font: Font, width: int) -> str:
    """The text, shortened to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + _SHORTENED) > width:
        text = text[:-1]
    return text + _SHORTENED
