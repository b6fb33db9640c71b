"""A report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lib.files import write_atomically

Cell = str | int | float | None

_PNG_START = b"\x89PNG\r\n\x1a\n"
# What stands in a column of numbers: digits, with a sign, and with a unit or with other numbers after them.
_NUMBER = re.compile(r"[-+<>\u2212]?\s*(\d[\d.,]*|inf|nan)(\s*[%/\u00b1(].*|\s+\S{1,4}|[a-z\u00b5]{1,2})?")
_NOTHING = ("", "-", "\u2013")
_LEVELS = (2, 3, 4)
# A PNG file's width stands here.
_WIDTH = slice(16, 20)
# On a phone a picture is made this small, so that its text can be read, and is moved sideways from there.
_SMALLEST_SHARE = 0.45

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2329; --faint: #5c6670; --line: #d8dee4;
  --band: #f5f7f9; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #e4e8ec; --faint: #9aa5b0;
  --line: #343b43; --band: #1c2228; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; padding-bottom: .6rem;
  border-bottom: 3px solid var(--accent); }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
h4 { font-size: 1rem; margin: 1.2rem 0 .3rem; color: var(--faint); }
p { margin: .5rem 0; max-width: 46rem; white-space: pre-line; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; overflow-wrap: normal; }
caption { text-align: left; color: var(--faint); padding-bottom: .3rem; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--band); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pairs th { font-weight: normal; color: var(--faint); }
.pairs td { overflow-wrap: anywhere; }
figure { margin: 1rem 0; overflow-x: auto; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--faint); font-size: .9rem; max-width: 46rem; }
"""

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


class Page:
    """A report, written from top to bottom. Every text is taken as text: nothing in it becomes HTML.

    Args:
        title: of the page and of the browser's tab.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Begins a section.

        Raises:
            ValueError: the level is not 2, 3 or 4; the title is the only one of level 1.
        """
        if level not in _LEVELS:
            raise ValueError(f"there is no heading of level {level}: use 2, 3 or 4")
        self._parts.append(f"<h{level}>{_escaped(text)}</h{level}>")

    def paragraph(self, text: str) -> None:
        """Adds running text; its line breaks are kept."""
        self._parts.append(f"<p>{_escaped(text)}</p>")

    def key_values(self, pairs: Mapping[str, Cell] | Iterable[tuple[str, Cell]]) -> None:
        """Adds a table of names and their values."""
        items = pairs.items() if isinstance(pairs, Mapping) else pairs
        rows = (
            f'<tr><th scope="row">{_escaped(name)}</th><td>{_escaped(value)}</td></tr>'
            for name, value in items
        )
        self._table(f'<table class="pairs"><tbody>{"".join(rows)}</tbody></table>')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "") -> None:
        """Adds a table. A column of numbers, with or without units, is set to the right.

        Args:
            header: a title for each column.
            rows: of as many cells; None is an empty one. Numbers appear as ``str`` writes them, so round them
                before.
            caption: above the table.

        Raises:
            ValueError: a row has more or fewer cells than the header.
        """
        cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
        for row in cells:
            if len(row) != len(header):
                raise ValueError(f"a row of {len(row)} cells under {len(header)} titles: give one for each")
        styles = [_style([row[column] for row in cells]) for column in range(len(header))]
        above = f"<caption>{_escaped(caption)}</caption>" if caption else ""
        titles = _row("th", header, styles)
        body = "\n".join(_row("td", row, styles) for row in cells)
        self._table(f"<table>{above}<thead>{titles}</thead><tbody>\n{body}\n</tbody></table>")

    def picture(self, png: bytes, alt: str, caption: str = "") -> None:
        """Adds a picture, inside the page.

        Args:
            png: a PNG file.
            alt: what it shows, for who cannot see it.
            caption: below it.

        Raises:
            ValueError: the bytes are no PNG file.
        """
        if not png.startswith(_PNG_START):
            raise ValueError(f"a picture that begins with {png[:8]!r} is no PNG file: convert it before")
        data = base64.b64encode(png).decode("ascii")
        below = f"<figcaption>{_escaped(caption)}</figcaption>" if caption else ""
        smallest = round(_SMALLEST_SHARE * int.from_bytes(png[_WIDTH], "big"))
        image = (
            f'<img src="data:image/png;base64,{data}" alt="{_escaped(alt)}" style="min-width: {smallest}px">'
        )
        self._parts.append(f'<figure tabindex="0">{image}{below}</figure>')

    def render(self) -> str:
        """The whole page."""
        return _FRAME.format(title=_escaped(self._title), style=_STYLE, body="\n".join(self._parts))

    def write(self, path: Path) -> None:
        """Writes the page: who reads the file meanwhile finds the old page or the new one, and never a part.

        Args:
            path: a file there is replaced; its folder is made.

        Raises:
            OSError: the page cannot be written; a page that was there is still as it was.
        """
        # What no encoding knows, such as half a surrogate pair out of a file's name, becomes a question mark.
        write_atomically(path, self.render().encode("utf-8", errors="replace"))

    def _table(self, table: str) -> None:
        # Tabbing to it lets a wide table be moved without a mouse.
        self._parts.append(f'<div class="scroll" tabindex="0">{table}</div>')


def _escaped(value: Cell) -> str:
    return "" if value is None else html.escape(str(value), quote=True)


def _row(tag: str, cells: Iterable[str], styles: Iterable[str]) -> str:
    made = (f"<{tag}{style}>{_escaped(cell)}</{tag}>" for cell, style in zip(cells, styles, strict=True))
    return f"<tr>{''.join(made)}</tr>"


def _style(cells: Sequence[str]) -> str:
    written = [cell for cell in cells if cell not in _NOTHING]
    return ' class="number"' if written and all(_NUMBER.fullmatch(cell) for cell in written) else ""
