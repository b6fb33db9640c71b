"""MONAI Label's record of images and labels, ``datastore_v2.json``, shared by several processes.

Training, scoring and batch inference run in processes of their own and write the same file. Each change reads
the newest record, modifies a private copy and replaces the file atomically, all under one file lock
(``.lock`` in the datastore's folder), which excludes threads as well as processes.
Readers use the snapshot of the last read or change; a snapshot is never modified.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastoreModel
from pydantic import Field
from pydantic_core import from_json, to_json

from lib.errors import InfoError
from lib.files import write_atomically
from lib.images.cache import file_stamp

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Levels of nesting that the record adds around the information of one label, with room to spare. The JSON
# parser stops at 200 levels.
_LEVELS = 20


class FolderModel(LocalDatastoreModel):
    """MONAI Label's record, and the information of files that are missing at the moment.

    Synchronisation programs delete a label and bring it back: its class names must come back with it.

    Attributes:
        away: Information of missing files by tag and file name, ``final/ct.nii.gz``; ``/ct.nii.gz`` for an
            image. Never shown to clients.
    """

    away: dict[str, DataModel] = Field(default_factory=dict, exclude=True)


class SharedRecord:
    """The record file and this process's snapshot of it.

    Args:
        path: Record file; may be missing.
        lock_file: Lock file of all processes.
        empty: Content of a new record.
        writable: Whether changes are written to the file. Otherwise they stay in this process's memory.

    Attributes:
        content: Snapshot of the last read or change.
        stamp: Stamp of the file that the snapshot was read from; None where there is none.
    """

    def __init__(self, path: Path, lock_file: Path, empty: LocalDatastoreModel, writable: bool = True):
        self._path = path.resolve()
        self._lock_file = lock_file
        self._base_path = empty.base_path
        self._writable = writable
        self._thread_lock = threading.Lock()
        self.stamp: str | None = None
        self._text = _dump(FolderModel(**empty.model_dump()))
        self.content = self._parse(self._text)
        self.read()

    @property
    def state(self) -> Hashable:
        """Equal as long as the snapshot and the file are the same; takes no lock."""
        return self._text, self._stamp_of_file()

    def read(self) -> None:
        """Loads the file if another process has written it."""
        if self._stamp_of_file() != self.stamp:
            with self._locked():
                self._load()

    def change(self, work: Callable[[FolderModel], T], files: ExitStack | None = None) -> T:
        """Modifies the newest record under the lock and writes it; an error leaves everything as it was.

        Args:
            work: Modifies the record that it is given. It must not take the lock.
            files: Files of ``replacing`` that ``work`` has written. They take their places under the lock
                after the record was written, and not at all where that failed.

        Returns:
            The result of ``work``.

        Raises:
            OSError: The disk is full, or the file cannot be written.
        """
        with self._locked(), files or ExitStack():
            self._load()
            content = self._parse(self._text)
            result = work(content)
            text = _dump(content)
            if self._writable and (text != self._text or self.stamp is None):
                write_atomically(self._path, text)
                self.stamp = self._stamp_of_file()
            self._text, self.content = text, content
            return result

    def _locked(self) -> AbstractContextManager[Any]:
        return FileLock(self._lock_file) if self._writable else self._thread_lock

    def _load(self) -> None:
        """Takes the file's content; keeps this process's own where the file is missing or damaged."""
        stamp = self._stamp_of_file()
        if stamp is None or stamp == self.stamp:
            self.stamp = stamp
            return
        try:
            text = self._path.read_bytes().removeprefix(b"\xef\xbb\xbf")
            self.content, self._text, self.stamp = self._parse(text), text, stamp
        except ValueError as error:
            self._repair(error)

    def _repair(self, error: ValueError) -> None:
        """Keeps a damaged record under another name and goes on with what can be read of it."""
        broken = self._path.with_name(f"{self._path.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
        objects = _readable_objects(self._path)
        logger.error(
            "%s is damaged (%s). It is kept as %s. %d images were read from it; the rest is rebuilt from the "
            "files, without class names and notes",
            self._path.name,
            str(error).partition("\n")[0],
            broken.name if self._writable else self._path.name,
            len(objects),
        )
        if self._writable:
            self._path.replace(broken)
        content = self._parse(self._text)
        content.objects = {**content.objects, **objects}
        self.content, self._text = content, _dump(content)
        self.stamp = None if self._writable else self._stamp_of_file()

    def _parse(self, text: bytes) -> FolderModel:
        content = FolderModel.model_validate_json(text)
        content.base_path = self._base_path
        return content

    def _stamp_of_file(self) -> str | None:
        with suppress(FileNotFoundError):
            return file_stamp(self._path)
        return None


def plain_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of a client's information as the record can hold and read it again.

    Args:
        info: Any values; those that JSON does not know become text.

    Raises:
        InfoError: It cannot be read back: half a surrogate pair, NaN or infinity, or nested too deeply.
    """
    try:
        text = to_json(info or {}, fallback=str, inf_nan_mode="constants")
        from_json(b"[" * _LEVELS + text + b"]" * _LEVELS, allow_inf_nan=False)
        plain: dict[str, Any] = from_json(text)
    except (ValueError, RecursionError) as error:
        raise InfoError(
            f"the information cannot be saved as JSON ({str(error)[:200]}): send plain text, finite numbers, "
            "and at most 100 levels of nesting"
        ) from error
    return plain


def _dump(content: FolderModel) -> bytes:
    plain = content.model_dump(exclude={"base_path"})
    away = {name: data.model_dump() for name, data in content.away.items()}
    return to_json({**plain, "away": away}, indent=2, fallback=str, inf_nan_mode="constants")


def _readable_objects(path: Path) -> dict[str, ImageLabelModel]:
    """Images of a damaged record that can be read one by one."""
    try:
        items = dict(json.loads(path.read_text("utf-8-sig"))["objects"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    found = {}
    for image_id, item in items.items():
        try:
            found[image_id] = ImageLabelModel.model_validate_json(json.dumps(item))
        except ValueError:
            logger.error("The information on image %r is damaged and left out", image_id)
    return found
