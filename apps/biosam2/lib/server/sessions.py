"""``/session``: images that a client uploads once and segments several times, removed when they expire.

Archives are unpacked to plain files only, inside one folder only, up to a limit.
"""

from __future__ import annotations

import logging
import lzma
import os
import re
import shutil
import tarfile
import threading
import time
import uuid
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import NamedTemporaryFile
from typing import IO, Annotated, Any

from fastapi import Depends, File, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from lib.errors import BusyError, ImageError, ImageTooLargeError
from lib.files import write_atomically
from lib.server.routing import AnyUser, Routes, file_response, of_server, refuse

logger = logging.getLogger(__name__)

MAX_FILES = 20_000
# Images shrink to a third, label maps and blank slices to a hundredth.
MAX_RATIO = 200
# A small archive may unpack to this in any case.
ALWAYS_ALLOWED = 64 << 20
# Names and attributes of a tar member; a longer one is no file name.
_MAX_TAR_HEADER = 1 << 16
# Kept free on the disk: labels must be saved even if sessions fill the rest.
_RESERVE = 1 << 30
_RECORD = "session.json"
_FILES = "files"
_UNFINISHED = "unfinished-"
_CONTROL = re.compile(r"[\x00-\x1f]")
_MAX_NAME_BYTES = 200
_CHUNK = 1 << 20
# Of libraries, for archives that are damaged or are none.
_NO_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
_ODD_ARCHIVE = (RuntimeError, ValueError, FileExistsError, NotADirectoryError, IsADirectoryError)


class UploadSession(BaseModel):
    """One upload; its fields without ``root`` are its record.

    Attributes:
        name: UUID that the server made.
        root: Folder of the record and the files.
        relative: The file, or the folder where there are several (a DICOM series), inside the files.
        create_ts: Time of the upload in seconds since 1970.
        last_access_ts: Time of the last use.
        expiry: Seconds after the last use at which the session ends.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str
    root: Path = Field(default=Path(), exclude=True)
    relative: str = Field(alias="image")
    create_ts: int
    last_access_ts: int
    expiry: int

    @property
    def folder(self) -> Path:
        """Folder of the uploaded files."""
        return self.root / _FILES

    @property
    def image(self) -> Path:
        """The file, or the folder of several."""
        return self.folder / self.relative

    @property
    def is_expired(self) -> bool:
        """Whether the session has ended."""
        return self.last_access_ts + self.expiry < time.time()

    @property
    def files(self) -> list[Path]:
        """All files, sorted."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def to_json(self) -> dict[str, Any]:
        """What clients see, with MONAI Label's names; paths are relative to the session."""
        return {**self.model_dump(by_alias=True), "path": "", "meta": {"files": len(self.files)}}

    def write(self) -> None:
        """Writes the record."""
        write_atomically(self.root / _RECORD, self.model_dump_json(by_alias=True).encode())

    @classmethod
    def read(cls, root: Path) -> UploadSession | None:
        """The session of a folder; None where its record cannot be read or leads out of the folder."""
        try:
            found = cls.model_validate_json((root / _RECORD).read_bytes())
        except (OSError, ValueError):
            return None
        found.root = root
        image, files = found.image.resolve(), found.folder.resolve()
        is_inside = files in (image, *image.parents)
        return found if is_inside and image.exists() and found.name == root.name else None


class SessionStore:
    """Sessions in a folder, one subfolder each. Safe to use from several threads.

    Args:
        root: Folder of the sessions.
        expiry: Longest time without use in seconds.
        max_bytes: Most bytes of one session.
    """

    def __init__(self, root: Path, expiry: int, max_bytes: int):
        self._root = root
        self._expiry = expiry
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def add(self, files: Sequence[tuple[str, IO[bytes]]], is_archive: bool, expiry: int) -> UploadSession:
        """Keeps uploaded files.

        Args:
            files: Names and contents.
            is_archive: Whether the one file is a zip or tar archive to unpack.
            expiry: Seconds without use; 0 or more than the limit for the limit.

        Raises:
            ImageError: No file, names that cannot be used, or an archive that cannot be unpacked.
            ImageTooLargeError: Too many bytes or files.
            BusyError: The disk is nearly full.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._root).free < _RESERVE:
            raise BusyError("the server's disk is nearly full: it keeps no more uploads now")
        name = str(uuid.uuid4())
        unfinished = self._root / f"{_UNFINISHED}{name}"
        folder = unfinished / _FILES
        try:
            folder.mkdir(parents=True)
            if is_archive:
                self._unpack(files, unfinished / "archive", folder)
            else:
                _copy(files, folder)
            now, limit = int(time.time()), min(expiry, self._expiry) if expiry > 0 else self._expiry
            facts = {"create_ts": now, "last_access_ts": now, "expiry": limit}
            UploadSession(name=name, root=unfinished, image=_image_of(folder), **facts).write()
            unfinished.rename(self._root / name)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        if (kept := self.get_session(name)) is None:
            raise BusyError("The session was removed while it was saved; send the files again")
        return kept

    def get_session(self, session_id: str, update_ts: bool = True) -> UploadSession | None:
        """A session by its id; None for an unknown or expired one.

        Args:
            session_id: A client's word.
            update_ts: Whether this counts as a use.
        """
        found = UploadSession.read(self._root / session_id) if is_session_id(session_id) else None
        if found is None or found.is_expired:
            return None
        if update_ts:
            found.last_access_ts = int(time.time())
            with self._lock:
                if found.folder.is_dir():
                    found.write()
        return found

    def require_session(self, session_id: str, update_ts: bool = True) -> UploadSession:
        """A session by its id."""
        if (session := self.get_session(session_id, update_ts)) is None:
            reason = f"Unknown session {session_id[:100]!r}: it may have expired, upload again"
            refuse(HTTPStatus.NOT_FOUND, reason)
        return session

    def remove_session(self, session_id: str) -> None:
        """Removes a session and its files."""
        if is_session_id(session_id):
            with self._lock:
                shutil.rmtree(self._root / session_id, ignore_errors=True)

    def remove_expired(self) -> int:
        """Removes expired sessions, and uploads that a killed server left; other files stay.

        Returns:
            Number of removed sessions.
        """
        count = 0
        for folder in self._root.iterdir() if self._root.is_dir() else ():
            if folder.name.startswith(_UNFINISHED):
                is_old = time.time() - folder.stat().st_mtime > self._expiry
            elif is_session_id(folder.name):
                found = UploadSession.read(folder)
                is_old = found is None or found.is_expired
            else:
                continue
            if is_old:
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
        return count

    def _unpack(self, files: Sequence[tuple[str, IO[bytes]]], archive: Path, folder: Path) -> None:
        if len(files) != 1:
            raise ImageError(f"uncompress=true needs one archive; {len(files)} files were sent")
        with archive.open("wb") as file:
            shutil.copyfileobj(files[0][1], file, _CHUNK)
        unpack(archive, folder, self._max_bytes)
        archive.unlink()


def is_session_id(text: str) -> bool:
    """Whether a text is a UUID as the server writes them, and so can be no path."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _copy(files: Sequence[tuple[str, IO[bytes]]], folder: Path) -> None:
    if not files:
        raise ImageError("the request has no file: send one or more in the field files")
    if len(files) > MAX_FILES:
        raise ImageTooLargeError(f"{len(files)} files are more than {MAX_FILES}: send an archive")
    for name, source in files:
        target = folder / _plain_name(name)
        if target.exists():
            raise ImageError(f"two files are called {target.name!r}: give each its own name")
        with target.open("xb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
        if not target.stat().st_size:
            raise ImageError(f"{target.name} is empty (0 bytes): save or export it again")


def _image_of(folder: Path) -> str:
    """The one file of a session, or the folder of several; of an archive with one subfolder, that."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not files:
        raise ImageError("the archive holds no file")
    common = files[0] if len(files) == 1 else Path(os.path.commonpath([str(path.parent) for path in files]))
    return common.relative_to(folder).as_posix()


def _plain_name(name: str) -> str:
    """The file's name on the client's machine, without folders.

    Raises:
        ImageError: It cannot be a file name.
    """
    plain = PureWindowsPath(name).name
    if not plain or plain in (".", "..") or _CONTROL.search(plain):
        raise ImageError(f"{name[:100]!r} cannot be a file name")
    if len(plain.encode(errors="replace")) > _MAX_NAME_BYTES:
        raise ImageError(f"the file name {plain[:40]!r}... is longer than {_MAX_NAME_BYTES} bytes")
    return plain.encode(errors="replace").decode()


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
    except (*_NO_ARCHIVE, *_ODD_ARCHIVE, OSError) as error:
        # bz2 and gzip raise a plain one for damaged data; those of a full disk and the like have a number.
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, _ODD_ARCHIVE):
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


routes = Routes(prefix="/session", tags=["Session"])


async def _switched_on(store: Annotated[SessionStore | None, of_server("sessions")]) -> SessionStore:
    if store is None:
        refuse(HTTPStatus.NOT_ACCEPTABLE, "sessions are switched off here (MONAI_LABEL_SESSIONS)")
    return store


_Store = Annotated[SessionStore, Depends(_switched_on)]


@routes.put("/")
def add(
    user: AnyUser,
    store: _Store,
    files: Annotated[list[UploadFile], File()],
    uncompress: bool = False,
    expiry: int = 0,
) -> Any:
    """Keeps one image, the files of a DICOM series, or the content of an archive."""
    session = store.add([(file.filename or "", file.file) for file in files], uncompress, expiry)
    return {"session_id": session.name, "session_info": session.to_json()}


@routes.get("/{session_id}")
def show(user: AnyUser, store: _Store, session_id: str, update_ts: bool = False, image: bool = False) -> Any:
    """What is known of a session, or its image; several files come as a zip archive."""
    session = store.require_session(session_id, update_ts)
    if not image:
        return session.to_json()
    if session.image.is_file():
        return file_response(session.image)
    # Without compression: it would take longer than the way.
    with (
        NamedTemporaryFile(prefix="biosam2-session-", suffix=".zip", delete=False) as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        for path in session.files:
            archive.write(path, path.relative_to(session.folder))
    return file_response(file.name, "application/zip", "session.zip", temporary=True)


@routes.delete("/{session_id}")
def remove(user: AnyUser, store: _Store, session_id: str) -> Any:
    """Removes a session."""
    session = store.require_session(session_id, update_ts=False)
    answer = session.to_json()
    store.remove_session(session_id)
    return answer
