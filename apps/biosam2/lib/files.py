"""Files that are complete or absent at any moment, locks, and folders for temporary files.

Temporary names hold the process and machine of their writer: what a killed process left is recognised and
deleted. Several machines may share a folder.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from lib.errors import ReadOnlyError, StorageFullError

# mkstemp makes files that their owner alone can read; published files are for all.
_MODE = 0o644
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
# Age in seconds after which a temporary file is left over whatever process has its number: containers start
# each server with the same one.
_OLD_S = 24 * 3600
# Seconds for which a lock is held at most by those who only look whether it is, on a busy machine.
PROBED_S = 0.1
_POLL_S = 0.01
_MARK = ".part-"
_MACHINE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes a file so that a reader, or a crash, finds the old content or the new.

    Raises:
        OSError: The disk is full, or the folder cannot be written; the old content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that replaces it at the end, or is deleted after an error.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=temporary_name(path.name), dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        temporary.chmod(_MODE)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Raises errors of a full or protected disk as the app's own; their text names no path of the server.

    Raises:
        StorageFullError: The disk is full, or the quota is reached.
        ReadOnlyError: The server may not write there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(
                "the server's disk is full: nothing was saved; ask its operator to free space, and try again"
            ) from error
        if error.errno in _FORBIDDEN:
            name = Path(str(error.filename or "")).name
            raise ReadOnlyError(
                f"the server may not write {name!r}: nothing was saved; ask its operator to make the folder "
                "writable"
            ) from error
        raise


def sync(path: Path) -> None:
    """Flushes a file or folder to the disk; Windows cannot do so for folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Deletes temporary files that killed processes left in a folder.

    Args:
        folder: Folder; files in its sub-folders are not looked at.

    Returns:
        Number of deleted files and folders.
    """
    count = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _is_left_over(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                count += 1
    return count


def temporary_name(kind: str) -> str:
    """Prefix for the name of a temporary file or folder of this process, for ``sweep``."""
    return f".{kind}-{this_process()}{_MARK}"


def _is_left_over(path: Path) -> bool:
    name, mark, _ = path.name.rpartition(_MARK)
    owner = name.rpartition("-")[2]
    if not mark or not path.name.startswith(".") or not owner.partition("@")[0].isdigit():
        return False
    return has_ended(owner) or owner == this_process() or is_old(path)


def is_old(path: Path) -> bool:
    """Whether a temporary file or folder is left over, whatever has become of its process."""
    return path.lstat().st_mtime < time.time() - _OLD_S


def this_process() -> str:
    """Name of this process among those of all machines that share a folder, without ``-``."""
    return f"{os.getpid()}@{_MACHINE}"


def has_ended(process: str) -> bool:
    """Whether a process has ended, by its name (``this_process``); False for one of another machine."""
    pid, _, machine = process.partition("@")
    return machine in ("", _MACHINE) and not is_running(int(pid))


def is_running(pid: int) -> bool:
    """Whether there is a process of this number that has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Holds a lock file, which excludes threads and processes, also of other machines that share its folder.

    The system releases the lock of a process that was killed.

    Raises:
        OSError: The folder cannot be written.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def is_locked(lock: Path) -> bool:
    """Whether anybody holds a lock file, and not just to ask this; False where that cannot be found out."""
    if not lock.is_file():
        return False
    try:
        FileLock(lock).acquire(PROBED_S, _POLL_S).lock.release()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    return False


def use_own_temporary_folder() -> None:
    """Makes this process and its children write temporary files into one folder, and deletes it at exit.

    Folders of servers that were killed are deleted, whatever library made the files in them.
    """
    sweep(Path(tempfile.gettempdir()))
    folder = tempfile.mkdtemp(prefix=temporary_name("biosam2"))
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
