"""Unpacks archives of clients: plain files only, inside one folder only, up to a limit."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lib.errors import ImageError, ImageTooLargeError

MAX_FILES = 20_000
# Images shrink to a third, label maps and blank slices to a hundredth.
MAX_RATIO = 200
# A small archive may unpack to this in any case.
ALWAYS_ALLOWED = 64 << 20
# Names and attributes of a tar member; a longer one is no file name.
_MAX_TAR_HEADER = 1 << 16
_CHUNK = 1 << 20


@dataclass
class _Budget:
    """Bytes and files that may still be unpacked."""

    bytes_left: int
    files_left: int

    def take_file(self) -> None:
        self.files_left -= 1
        if self.files_left < 0:
            raise ImageTooLargeError(f"the archive has more than {MAX_FILES} files: send fewer")

    def copy(self, source: IO[bytes], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                self.bytes_left -= len(chunk)
                if self.bytes_left < 0:
                    raise ImageTooLargeError(
                        "the archive unpacks to too many bytes: send a smaller one, or its files alone"
                    )
                file.write(chunk)


class _ShortHeaders(tarfile.TarInfo):
    """Refuses long names and attributes, which tarfile reads into memory whole."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        found = super().frombuf(buf, encoding, errors)
        if not found.isreg() and found.size > _MAX_TAR_HEADER:
            raise ImageError("the archive has a member with a name or attributes of more than 64 KiB")
        return found


def unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    """Unpacks a zip or tar archive (also .gz, .bz2, .xz) into an empty folder.

    Links, devices and members whose names lead out of the folder are refused, and nothing is run or made
    executable.

    Args:
        archive: The file.
        folder: An empty folder; has to be removed by the caller if this fails.
        max_bytes: Most bytes to unpack; a small archive is allowed less (200 times its own size).

    Raises:
        ImageError: Not an archive, damaged, or with members other than plain files.
        ImageTooLargeError: More bytes or files than allowed.
    """
    limit = min(max_bytes, max(ALWAYS_ALLOWED, archive.stat().st_size * MAX_RATIO))
    budget = _Budget(limit, MAX_FILES)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder, budget)
        else:
            _unpack_tar(archive, folder, budget)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        FileExistsError,
        NotADirectoryError,
        IsADirectoryError,
    ) as error:
        raise ImageError(f"not a usable zip or tar archive: {error}") from error
    except OSError as error:
        # Of bz2 and gzip, for damaged data; others have a number, such as a full disk.
        if error.errno is not None:
            raise
        raise ImageError(f"not a usable zip or tar archive: {error}") from error


def _unpack_zip(archive: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            budget.take_file()
            target = _inside(folder, member.filename)
            if member.is_dir():
                continue
            # The type of a file made on Unix, in the upper half; a link is 0o12.
            kind = member.external_attr >> 28
            if kind not in (0, 0o10):
                raise ImageError(f"the archive's member {member.filename[:100]!r} is not a plain file")
            with opened.open(member) as source:
                budget.copy(source, target)


def _unpack_tar(archive: Path, folder: Path, budget: _Budget) -> None:
    # As a stream: members are looked at in order, before the next one is unpacked.
    with tarfile.open(archive, "r|*", tarinfo=_ShortHeaders) as opened:
        for member in opened:
            budget.take_file()
            target = _inside(folder, member.name)
            safe = tarfile.data_filter(member, str(folder))
            if safe.isdir():
                continue
            source = opened.extractfile(safe) if safe.isreg() else None
            if source is None:
                raise ImageError(f"the archive's member {member.name[:100]!r} is not a plain file")
            with source:
                budget.copy(source, target)


def _inside(folder: Path, name: str) -> Path:
    """The path of a member.

    Raises:
        ImageError: The name leads out of the folder.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or ":" in parts[0] or "\0" in name:
        raise ImageError(f"the archive's member {name[:100]!r} leads out of its folder")
    return folder.joinpath(*parts)
