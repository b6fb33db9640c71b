"""A report as one self-contained HTML file, rendered from ``templates/page.html``."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Template

from lib.files import write_atomically
from lib.palette import BLUE, SKY, Colour

Cell = str | int | float | None

_TEMPLATES = Path(__file__).parent / "templates"
# Bytes of a PNG file that hold its width.
_WIDTH = slice(16, 20)
# Share of its width to which a picture may shrink on a phone, so that its text stays legible.
_SMALLEST_SHARE = 0.45
# A cell of a numeric column: digits with a sign, and a unit or further numbers after them.
_NUMBER = re.compile(r"[-+<>\u2212]?\s*(\d[\d.,]*|inf|nan)(\s*[%/\u00b1(].*|\s+\S{1,4}|[a-z\u00b5]{1,2})?")
_EMPTY = ("", "-", "\u2013")


class Page:
    """A report, written from top to bottom. Every text stays text: none of it becomes HTML."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[dict[str, Any]] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Starts a section; level 1 is the title."""
        self._parts.append({"kind": "heading", "level": level, "text": text})

    def paragraph(self, text: str) -> None:
        """Adds running text; line breaks are kept."""
        self._parts.append({"kind": "paragraph", "text": text})

    def key_values(self, pairs: Mapping[str, Cell] | Iterable[tuple[str, Cell]]) -> None:
        """Adds a table of names and their values."""
        items = pairs.items() if isinstance(pairs, Mapping) else pairs
        self._parts.append({"kind": "pairs", "rows": [(name, _text(value)) for name, value in items]})

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "") -> None:
        """Adds a table. Columns of numbers, with or without units, are aligned to the right.

        Args:
            header: Column titles.
            rows: Cells per row, one for each title; None is an empty cell.
            caption: Text above the table.
        """
        cells = [[_text(cell) for cell in row] for row in rows]
        numeric = [_is_numeric([row[column] for row in cells]) for column in range(len(header))]
        self._parts.append(
            {"kind": "table", "header": header, "rows": cells, "caption": caption, "numeric": numeric}
        )

    def picture(self, png: bytes, alt: str) -> None:
        """Embeds a picture, the content of a PNG file, with a description for screen readers."""
        data = base64.b64encode(png).decode("ascii")
        width = round(_SMALLEST_SHARE * int.from_bytes(png[_WIDTH], "big"))
        self._parts.append({"kind": "picture", "data": data, "alt": alt, "width": width})

    def render(self) -> str:
        """The whole page as HTML."""
        accent = {"light": _css(BLUE), "dark": _css(SKY)}
        return _template().render(title=self._title, parts=self._parts, accent=accent)

    def write(self, path: Path) -> None:
        """Writes the page atomically: concurrent readers get the old page or the new one."""
        # Characters without an encoding, such as half a surrogate pair in a file name, become question marks.
        write_atomically(path, self.render().encode("utf-8", errors="replace"))


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


def _text(value: Cell) -> str:
    return "" if value is None else str(value)


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _is_numeric(cells: Sequence[str]) -> bool:
    written = [cell for cell in cells if cell not in _EMPTY]
    return bool(written) and all(_NUMBER.fullmatch(cell) for cell in written)
