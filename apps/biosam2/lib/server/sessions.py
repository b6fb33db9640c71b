"""Sessions: images that a client uploads once and segments several times, removed when they expire."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from lib.errors import BusyError, ImageError, ImageTooLargeError
from lib.files import replacing
from lib.server.archives import MAX_FILES, unpack

logger = logging.getLogger(__name__)

# Kept free on the disk: labels must be saved even if sessions fill the rest.
_RESERVE = 1 << 30
_RECORD = "session.json"
_FILES = "files"
_UNFINISHED = "unfinished-"
_CONTROL = re.compile(r"[\x00-\x1f]")
_MAX_NAME_BYTES = 200
_CHUNK = 1 << 20


@dataclass(frozen=True)
class UploadSession:
    """One upload.

    Attributes:
        name: UUID that the server made.
        folder: Folder of the uploaded files.
        image: The file, or the folder where there are several (a DICOM series).
        create_ts: Time of the upload in seconds since 1970.
        last_access_ts: Time of the last use.
        expiry: Seconds after the last use at which the session ends.
    """

    name: str
    folder: Path
    image: Path
    create_ts: int
    last_access_ts: int
    expiry: int

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
        return {
            "name": self.name,
            "path": "",
            "image": self.image.relative_to(self.folder).as_posix(),
            "meta": {"files": len(self.files)},
            "create_ts": self.create_ts,
            "last_access_ts": self.last_access_ts,
            "expiry": self.expiry,
        }


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
        self._require_space()
        name = str(uuid.uuid4())
        unfinished = self._root / f"{_UNFINISHED}{name}"
        folder = unfinished / _FILES
        try:
            folder.mkdir(parents=True)
            if is_archive:
                self._unpack(files, unfinished / "archive", folder)
            else:
                self._copy(files, folder)
            now = int(time.time())
            limit = min(expiry, self._expiry) if expiry > 0 else self._expiry
            found = UploadSession(name, folder, _image_of(folder), now, now, limit)
            _write(unfinished, found)
            unfinished.rename(self._root / name)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        kept = self.get_session(name)
        if kept is None:
            raise BusyError("The session was removed while it was saved; send the files again")
        return kept

    def get_session(self, session_id: str, update_ts: bool = True) -> UploadSession | None:
        """A session by its id; None for an unknown or expired one.

        Args:
            session_id: A client's word.
            update_ts: Whether this counts as a use.
        """
        if not is_session_id(session_id):
            return None
        found = self._read(self._root / session_id)
        if found is None or found.is_expired:
            return None
        if update_ts:
            found = replace(found, last_access_ts=int(time.time()))
            with self._lock:
                if found.folder.is_dir():
                    _write(self._root / session_id, found)
        return found

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
                found = self._read(folder)
                is_old = found is None or found.is_expired
            else:
                continue
            if is_old:
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
        return count

    def _read(self, folder: Path) -> UploadSession | None:
        try:
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            files = folder / _FILES
            image = files / record.pop("image")
            found = UploadSession(folder=files, image=image, **record)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        inside = files.resolve() in (image.resolve(), *image.resolve().parents)
        return found if inside and image.exists() and found.name == folder.name else None

    def _copy(self, files: Sequence[tuple[str, IO[bytes]]], folder: Path) -> None:
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

    def _unpack(self, files: Sequence[tuple[str, IO[bytes]]], archive: Path, folder: Path) -> None:
        if len(files) != 1:
            raise ImageError(f"uncompress=true needs one archive; {len(files)} files were sent")
        with archive.open("wb") as file:
            shutil.copyfileobj(files[0][1], file, _CHUNK)
        unpack(archive, folder, self._max_bytes)
        archive.unlink()

    def _require_space(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._root).free < _RESERVE:
            raise BusyError("the server's disk is nearly full: it keeps no more uploads now")


def is_session_id(text: str) -> bool:
    """Whether a text is a UUID as the server writes them, and so can be no path."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _write(folder: Path, session: UploadSession) -> None:
    record = {name: value for name, value in asdict(session).items() if name != "folder"}
    record["image"] = session.image.relative_to(session.folder).as_posix()
    with replacing(folder / _RECORD) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")


def _image_of(folder: Path) -> Path:
    """The one file of a session, or the folder of several; of an archive with one subfolder, that."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not files:
        raise ImageError("the archive holds no file")
    if len(files) == 1:
        return files[0]
    common = Path(os.path.commonpath([str(path.parent) for path in files]))
    return common


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
