"""MONAI Label's record of images and labels, ``datastore_v2.json``, safe for several processes that write it.

MONAI Label scores and trains in processes of their own, each with its own copy of the record, and each writes
the whole of it: a label that a person saved meanwhile is lost, with the names of its classes; and a process
that is killed while it writes leaves half a file, with which the server does not start again. Here every
writer takes over what others wrote before it writes, and the file is replaced in one step.

One lock, the file lock ``.lock`` in the datastore's folder, which keeps out threads as well as processes. It
is held from reading the others' record to writing ours, and is not taken twice: who holds it says so.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from filelock import FileLock
from monailabel.datastore.local import DataModel, LocalDatastoreModel
from pydantic import Field

from lib.datastores.merging import Plain, merge_files, merge_images
from lib.files import write_atomically

logger = logging.getLogger(__name__)


class FolderModel(LocalDatastoreModel):
    """MONAI Label's record, and what it said of files that are away: sync tools bring them back.

    Attributes:
        away: by tag and file name, as ``final/ct.nii.gz``; of an image ``/ct.nii.gz``. Nothing for clients.
    """

    away: dict[str, DataModel] = Field(default_factory=dict, exclude=True)


class SharedRecord:
    """The record as this process has it, and the file that it shares with others.

    Threads may go through ``content`` at any time: its tables are replaced and never grow or shrink.

    Args:
        path: of the file, which may not be there yet.
        lock_file: of MONAI Label.
        empty: what is in the record where there is no file.

    Raises:
        ValueError: the file is none of MONAI Label's.
    """

    def __init__(self, path: Path, lock_file: Path, empty: LocalDatastoreModel):
        # One thread that does all that is done under the lock. A thread that others always come before must
        # not hold a lock that they wait for.
        self.urgent: Executor | None = None
        self._path = path.resolve()
        self._lock_file = lock_file
        self.content = FolderModel(**empty.model_dump())
        # As the file was when this process last read or wrote it, and what tells that file from another.
        self._agreed: Plain = self._plain()
        self._state: tuple[int, int, int] | None = None
        with self._locked():
            if self._path.exists():
                self._open()

    def read(self) -> None:
        """Takes over what other processes wrote."""
        if self._state_of_file() != self._state:
            self._at_once(self._read)

    def write(self, locked: bool = False) -> None:
        """Writes what this process knows, with what others wrote.

        Args:
            locked: whether the caller holds the lock.
        """
        if locked:
            # A thread that waited for another here would hold a lock that the other waits for.
            self._change(lambda: None, locked)
        else:
            self._at_once(partial(self._change, lambda: None))

    def change(self, work: Callable[[], None]) -> None:
        """Takes over what others wrote, does some work on that, and writes what has changed.

        Args:
            work: changes ``content``; must not take the lock.
        """
        self._at_once(partial(self._change, work))

    def _at_once(self, work: Callable[[], None]) -> None:
        if self.urgent is None:
            work()
        else:
            self.urgent.submit(work).result()

    def _read(self) -> None:
        with self._locked():
            self._take_over()

    def _change(self, work: Callable[[], None], locked: bool = False) -> None:
        with contextlib.nullcontext() if locked else self._locked():
            self._take_over()
            work()
            content = self._plain()
            if content != self._agreed or self._state is None:
                write_atomically(self._path, json.dumps(content, indent=2).encode())
            self._agreed, self._state = content, self._state_of_file()

    def _locked(self) -> FileLock:
        return FileLock(self._lock_file)

    def _open(self) -> None:
        text, base = self._path.read_text(encoding="utf-8"), self.content.base_path
        self.content = FolderModel.model_validate_json(text)
        self.content.base_path = base
        self._agreed, self._state = self._plain(), self._state_of_file()

    def _take_over(self) -> None:
        state = self._state_of_file()
        if state == self._state or state is None:
            self._state = state
            return
        try:
            theirs = json.loads(self._path.read_text(encoding="utf-8"))
            objects, away = dict(self.content.objects), dict(self.content.away)
            merge_images(objects, self._agreed["objects"], theirs["objects"])
            merge_files(away, self._agreed["away"], theirs.setdefault("away", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # Half a file, of a process without manners: what this one knows is written over it.
            logger.error("%s cannot be read and is made again: %s", self._path.name, error)
            self._state = None
            return
        self.content.objects, self.content.away = objects, away
        self._agreed, self._state = theirs, state

    def _plain(self) -> Plain:
        """What this process knows, as JSON has it."""
        content = self.content.model_dump(exclude={"base_path"})
        away = {name: data.model_dump() for name, data in self.content.away.items()}
        plain: Plain = json.loads(json.dumps({**content, "away": away}, default=str))
        return plain

    def _state_of_file(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        # The time of a file is coarser than two writes; a file that took its place has another number.
        return stat.st_mtime_ns, stat.st_ino, stat.st_size
