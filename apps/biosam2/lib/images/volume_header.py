"""Headers of NRRD and MetaImage files, checked before any library reads them.

Both formats may name other files for their voxels, as a path, a pattern or a list. Only the file itself is
accepted, or, for the detached headers ``.nhdr`` and ``.mhd``, one plain file name in the same folder.
"""

from __future__ import annotations

import bz2
import gzip
import mmap
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lib.errors import ImageError
from lib.images.file_formats import DETACHED

# Bytes that are read together: large enough that Python's share is small.
CHUNK = 1 << 20
# Bytes of the longest header that is read. A 3D Slicer segmentation has some hundred bytes per segment.
_LONGEST_HEADER = 1 << 22
# Bytes behind the voxels that are read to reach the check sum of a compressed stream. Some writers pad.
_PADDING = 1 << 24
_META_FIELD = b"ElementDataFile"
_LOCAL = ("LOCAL", "Local", "local")
_NRRD_COMPRESSIONS = {"gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}


@dataclass(frozen=True)
class VoxelFile:
    """Place of a volume's voxels.

    Attributes:
        path: File that holds them.
        offset: Byte at which they start.
        compression: ``gzip``, ``bzip2``, ``zlib``, or empty for voxels that are not compressed.
        length: Compressed bytes, or -1 for all to the end of the file.
    """

    path: Path
    offset: int
    compression: str
    length: int = -1

    def require_whole(self, count: int) -> None:
        """Decompresses the voxels once, in constant memory, and checks their number and check sum.

        Args:
            count: Bytes that the header promises. Voxels that are not compressed have no check sum; the
                reader itself notices that they end early.

        Raises:
            ImageError: Fewer bytes, far more, or a damaged stream.
        """
        if self.compression:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                for _ in read_stream(file, self.compression, count, self.length):
                    pass


def nrrd_voxels(path: Path) -> VoxelFile:
    """Finds the voxels of a NRRD file.

    Raises:
        ImageError: They are in another file than ``.nrrd`` itself or the plain file beside a ``.nhdr``.
    """
    with path.open("rb") as file:
        lines = nrrd_header_lines(file)
        offset = file.tell()
    fields = dict(_nrrd_fields(lines))
    encoding = fields.get("encoding", "raw").lower()
    compression = _NRRD_COMPRESSIONS.get(encoding, "")
    if compression and {fields.get("byteskip", "0"), fields.get("lineskip", "0")} != {"0"}:
        raise ImageError("its compressed voxels are behind bytes to skip: save it without them")
    where = fields.get("datafile")
    if where is None:
        return VoxelFile(path, offset, compression)
    return VoxelFile(_beside(path, where), 0, compression)


def nrrd_header_lines(file: BinaryIO) -> list[bytes]:
    """Lines of a NRRD header; the file is left at the byte behind it.

    Raises:
        ImageError: The file does not begin as NRRD, or its header has no end.
    """
    lines = [file.readline(_LONGEST_HEADER)]
    if not lines[0].startswith(b"NRRD"):
        raise ImageError("it does not begin as a NRRD file does: export it again")
    length = 0
    # Only a line without any character ends the header for every reader.
    while lines[-1].rstrip(b"\r\n"):
        lines.append(file.readline(_LONGEST_HEADER))
        length += len(lines[-1])
        if length > _LONGEST_HEADER:
            raise ImageError(f"its NRRD header has more than {_LONGEST_HEADER} bytes: export it again")
    return lines


def _nrrd_fields(lines: list[bytes]) -> Iterator[tuple[str, str]]:
    """Fields in lower case and without spaces: NRRD readers accept ``data file`` and ``datafile``."""
    for line in re.split(r"[\r\n]+", b"".join(lines[1:]).decode("utf-8", "replace")):
        name, colon, value = line.partition(":")
        if colon and not value.startswith("=") and not name.startswith("#"):
            yield "".join(name.lower().split()), value.strip()


def meta_voxels(path: Path) -> VoxelFile:
    """Finds the voxels of a MetaImage file.

    Raises:
        ImageError: They are in another file than ``.mha`` itself or the plain file beside a ``.mhd``.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_META_FIELD, 0, _LONGEST_HEADER)
        end = content.find(b"\n", start)
        # MetaIO takes a line behind an empty value for that value, so that a second one would count.
        if start < 0 or end < 0 or content.find(_META_FIELD, end) >= 0:
            raise ImageError("its header does not say once where its voxels are: export it again")
        head, line = content[:start], content[start + len(_META_FIELD) : end]
    separator, where = line.strip()[:1], line.strip()[1:].decode("utf-8", "replace").strip()
    if separator not in (b"=", b":") or head.strip(b" \t")[-1:] not in (b"", b"\r", b"\n"):
        raise ImageError("its header does not say where its voxels are (ElementDataFile): export it again")
    fields = dict(_meta_fields(head))
    compression = "zlib" if fields.get("compresseddata", "").lower().startswith(("t", "1")) else ""
    length = fields.get("compresseddatasize", "")
    size = int(length) if compression and length.isdigit() and int(length) else -1
    if where in _LOCAL:
        return VoxelFile(path, end + 1, compression, size)
    return VoxelFile(_beside(path, where), 0, compression, size)


def _meta_fields(head: bytes) -> Iterator[tuple[str, str]]:
    for line in head.decode("utf-8", "replace").splitlines():
        name, *value = re.split("[=:]", line, maxsplit=1)
        yield name.strip().lower(), "".join(value).strip()


def _beside(header: Path, where: str) -> Path:
    """File that a detached header names: in its own folder, no pattern and no list."""
    if header.suffix.lower() not in DETACHED:
        raise ImageError(
            f"its voxels are in another file ({where[:100]!r}): save header and voxels as one .nrrd or .mha "
            "file"
        )
    # Uploads of all clients lie side by side in the folder of temporary files.
    is_upload = header.parent.resolve() == Path(tempfile.gettempdir()).resolve()
    is_plain = where and not is_upload and not re.search(r"[%\\/:\"\x00]|^\.|^LIST", where, re.IGNORECASE)
    if not is_plain or not (header.parent / where).is_file():
        raise ImageError(
            f"its voxels must be in one file of the same folder, and its header names {where[:100]!r}: save "
            "header and voxels as one .nrrd or .mha file"
        )
    return header.parent / where


def read_stream(
    file: BinaryIO, compression: str, count: int, length: int = -1, skip: int = 0
) -> Iterator[bytes]:
    """Decompresses voxels in chunks; more than the header promises never lies in memory.

    Args:
        file: Open file at the first compressed byte.
        compression: ``gzip``, ``bzip2`` or ``zlib``.
        count: Bytes of voxels that the header promises.
        length: Compressed bytes, or -1 for all to the end of the file.
        skip: Decompressed bytes before the voxels.

    Yields:
        Bytes of voxels, ``count`` in all.

    Raises:
        ImageError: Fewer bytes, far more, or a damaged stream.
    """
    got = -skip
    try:
        for chunk in _OPENERS[compression](file, length):
            if voxels := chunk[max(0, -got) : max(0, count - got)]:
                yield voxels
            got += len(chunk)
            if got > count + _PADDING:
                raise ImageError(
                    f"its header promises {count} bytes of voxels and it holds more: export it again"
                )
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ImageError(f"its compressed voxels are damaged ({error}): copy or export it again") from error
    require_count(max(0, got), count)


def require_count(got: int, count: int) -> None:
    """Refuses a file with fewer bytes of voxels than its header promises.

    Raises:
        ImageError: With both numbers.
    """
    if got < count:
        raise ImageError(
            f"the file is cut off: its header promises {count} bytes of voxels and it holds {got}; copy or "
            "export it again"
        )


def read_exactly(file: BinaryIO, compression: str, count: int, skip: int = 0) -> NDArray[np.uint8]:
    """Reads voxels into memory, decompressed and checked as ``read_stream`` does.

    Args:
        file: Open file at the first compressed byte.
        compression: ``gzip``, ``bzip2`` or ``zlib``.
        count: Bytes of voxels that the header promises.
        skip: Decompressed bytes before the voxels.
    """
    buffer, got = np.empty(count, dtype=np.uint8), 0
    for chunk in read_stream(file, compression, count, skip=skip):
        buffer[got : got + len(chunk)] = np.frombuffer(chunk, np.uint8)
        got += len(chunk)
    return buffer


def _file_chunks(opener: Callable[[BinaryIO], Any]) -> Callable[[BinaryIO, int], Iterator[bytes]]:
    def chunks(file: BinaryIO, length: int) -> Iterator[bytes]:
        with opener(file) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    return chunks


def _zlib_chunks(file: BinaryIO, length: int) -> Iterator[bytes]:
    """One zlib stream; its Adler-32 is checked by zlib when the end is reached."""
    unpacker, left, is_full = zlib.decompressobj(), length, False
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail
        if not packed and not is_full:
            packed = file.read(CHUNK if left < 0 else min(CHUNK, left))
            left -= len(packed) if left > 0 else 0
            if not packed:
                raise EOFError("the stream has no end")
        chunk = unpacker.decompress(packed, CHUNK)
        is_full = len(chunk) == CHUNK
        yield chunk


_OPENERS: dict[str, Callable[[BinaryIO, int], Iterator[bytes]]] = {
    "gzip": _file_chunks(lambda file: gzip.GzipFile(fileobj=file)),
    "bzip2": _file_chunks(bz2.BZ2File),
    "zlib": _zlib_chunks,
}
