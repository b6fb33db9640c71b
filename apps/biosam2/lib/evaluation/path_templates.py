"""Finding the files of a dataset from templates of their paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# What unpacking on a Mac leaves behind.
_JUNK = "__MACOSX"


@dataclass(frozen=True)
class Match:
    """A file that a template found.

    Attributes:
        path: of the file.
        base: the folder that the template starts from.
        parts: what the template's names stand for.
    """

    path: Path
    base: Path
    parts: Mapping[str, str]

    def beside(self, template: str) -> Path:
        """The path of another template from the same start, with the same names."""
        return self.base / template.format(**self.parts)


def files_below(folder: Path) -> list[PurePosixPath]:
    """Every file at any depth, relative to the folder, sorted; hidden ones and junk left out."""
    return sorted(_walk(folder))


def find(folder: Path, files: Sequence[PurePosixPath], template: str) -> list[Match]:
    """The files whose path ends as the template says.

    Args:
        folder: that the files are in.
        files: relative to it.
        template: such as ``images/{id}_0000.nii.gz``: a name in braces stands for any part of a file's or
            folder's name, a star for any text in it.
    """
    pattern = re.compile(rf"(?P<base_>(?:.*/)?){_expression(template)}")
    matches = []
    for file in files:
        if found := pattern.fullmatch(file.as_posix()):
            parts = found.groupdict()
            base = folder / parts.pop("base_")
            matches.append(Match(folder / file, base, parts))
    return matches


def _expression(template: str) -> str:
    """The template as a regular expression; a name that comes again stands for the same."""
    seen: set[str] = set()
    pieces = []
    for number, piece in enumerate(_PLACEHOLDER.split(template)):
        if number % 2 == 0:
            pieces.append(re.escape(piece).replace(r"\*", "[^/]*"))
        else:
            pieces.append(rf"(?P={piece})" if piece in seen else rf"(?P<{piece}>[^/]+?)")
            seen.add(piece)
    return "".join(pieces)


def _walk(folder: Path) -> Iterator[PurePosixPath]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != _JUNK]
        for name in files:
            if not name.startswith("."):
                yield PurePosixPath((Path(place) / name).relative_to(folder).as_posix())
