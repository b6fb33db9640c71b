"""MONAI Label's record of images and labels, ``datastore_v2.json``, safe for several processes that write it.

MONAI Label scores and trains in processes of their own, each with its own copy of the record, and each writes
the whole of it: a label that a person saved meanwhile is lost, with the names of its classes; and a process
that is killed while it writes leaves half a file, with which the server does not start again. Here every
writer takes over what others wrote before it writes, under MONAI Label's own lock, and the file is replaced
in one step.

One lock, the file lock ``.lock`` in the datastore's folder: MONAI Label's calls that write hold it already
(``lock=False``) or have it taken here; it is held from reading the others' record to writing ours.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore

from lib.files import write_atomically
from lib.scoring.merging import Plain, merge_images

logger = logging.getLogger(__name__)


def open_shared(make: Callable[[], Datastore]) -> Datastore:
    """A datastore that is shared from its first write on.

    Args:
        make: opens it, as ``MONAILabelApp.init_datastore`` does.
    """
    read_only = settings.MONAI_LABEL_DATASTORE_READ_ONLY
    # Opening brings the record up to date with the folder, and writes it: that waits until it is shared.
    settings.MONAI_LABEL_DATASTORE_READ_ONLY = True
    try:
        datastore = make()
    finally:
        settings.MONAI_LABEL_DATASTORE_READ_ONLY = read_only
    share_record(datastore)
    if isinstance(datastore, LocalDatastore) and not read_only:
        datastore.refresh()
    return datastore


def share_record(datastore: Datastore, urgent: Executor | None = None) -> None:
    """Makes the record of a datastore safe for several processes; those without such a record are left alone.

    Every process that writes it has to call this. Of a second call, only ``urgent`` counts.

    Args:
        datastore: to share.
        urgent: one thread that does all that is done under the lock. A thread that others always come before
            must not hold a lock that they wait for.
    """
    if not isinstance(datastore, LocalDatastore):
        return
    record = getattr(datastore._update_datastore_file, "__self__", None)
    if not isinstance(record, _Record):
        record = _Record(datastore)
        record.attach()
    record.urgent = urgent or record.urgent


class _Record:
    """Stands for the two methods through which a LocalDatastore reads and writes its record."""

    def __init__(self, datastore: LocalDatastore):
        self.urgent: Executor | None = None
        self._store = datastore
        self._path = Path(datastore._datastore_config_path).resolve()
        self._lock_file = datastore._lock_file
        # As the file was when this process last read or wrote it, and what tells that file from another.
        self._agreed: Plain = self._plain()
        self._state: tuple[int, int, int] | None = None

    def attach(self) -> None:
        self._store._init_from_datastore_file = self.read
        self._store._update_datastore_file = self.write
        handler = getattr(self._store, "_handler", None)
        if handler is not None:
            # A file that takes another's place is moved there.
            handler.on_moved = lambda event: self.read()
        self.read()

    def read(self, throw_exception: bool = False) -> None:
        """Takes over what other processes wrote. MONAI Label's own signature."""
        if self._state_of_file() != self._state:
            self._at_once(self._read)

    def write(self, lock: bool = True) -> None:
        """Writes what this process knows, with what others wrote. MONAI Label's own signature."""
        self._at_once(partial(self._write, lock))

    def _at_once(self, work: Callable[[], None]) -> None:
        if self.urgent is None:
            work()
        else:
            self.urgent.submit(work).result()

    def _read(self) -> None:
        with FileLock(self._lock_file):
            self._take_over()

    def _write(self, lock: bool) -> None:
        with FileLock(self._lock_file) if lock else contextlib.nullcontext():
            self._take_over()
            content = self._plain()
            if content != self._agreed or self._state is None:
                write_atomically(self._path, json.dumps(content, indent=2).encode())
            self._agreed, self._state = content, self._state_of_file()

    def _take_over(self) -> None:
        state = self._state_of_file()
        if state == self._state or state is None:
            self._state = state
            return
        try:
            theirs = json.loads(self._path.read_text(encoding="utf-8"))
            merge_images(self._store._datastore.objects, self._agreed["objects"], theirs["objects"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # Half a file, of a process without manners: what this one knows is written over it.
            logger.error("%s cannot be read and is made again: %s", self._path.name, error)
            self._state = None
            return
        self._agreed, self._state = theirs, state

    def _plain(self) -> Plain:
        """What this process knows, as JSON has it."""
        content = self._store._datastore.model_dump(exclude={"base_path"})
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
        return plain

    def _state_of_file(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        # The time of a file is coarser than two writes; a file that took its place has another number.
        return stat.st_mtime_ns, stat.st_ino, stat.st_size
