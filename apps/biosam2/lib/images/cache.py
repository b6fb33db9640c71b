"""Opened images, kept within a budget of bytes."""

from __future__ import annotations

import hashlib
import stat
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from lib.images.reading import MedicalImage, read_image

# A video holds its file open, and a process may often open 1024.
MOST_IMAGES = 256


@dataclass(frozen=True)
class _Key:
    """A file as it is now: a file that is written again has another key."""

    path: str
    stamp: str


class ImageCache:
    """Images by file; the least recently used is dropped first. Safe to share between threads.

    The lock protects the index only; files are read without it. A thread that asks for an image that another
    thread is reading waits for that reading, and gets its error if it fails; errors are not kept.

    Args:
        budget_bytes: Limit of the bytes of kept voxels; 0 keeps nothing. A larger image is read for each
            request.
        max_voxels: Limit of voxels of an image (``--conf max_voxels``).
    """

    def __init__(self, budget_bytes: int, max_voxels: int) -> None:
        self._budget = budget_bytes
        self._max_voxels = max_voxels
        self._lock = threading.Lock()
        self._images: OrderedDict[_Key, MedicalImage] = OrderedDict()
        self._reading: dict[_Key, Future[MedicalImage]] = {}
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels that are kept now."""
        return self._bytes

    def get(self, path: Path | str) -> MedicalImage:
        """Image of a file or a DICOM folder, from memory if the file has not changed since.

        Raises:
            ImageNotFoundError: There is no such file.
            ImageTooLargeError: It has too many voxels or bytes.
            ImageError: It cannot be read.
        """
        key = _key(path)
        if key is None:
            return read_image(path, self._max_voxels)
        with self._lock:
            kept = self._images.get(key)
            if kept is not None:
                self._images.move_to_end(key)
                return kept
            waited = self._reading.get(key)
            if waited is None:
                mine: Future[MedicalImage] = Future()
                self._reading[key] = mine
        if waited is not None:
            return waited.result()
        return self._read(key, path, mine)

    def _read(self, key: _Key, path: Path | str, mine: Future[MedicalImage]) -> MedicalImage:
        try:
            image = read_image(path, self._max_voxels)
        except BaseException as error:
            with self._lock:
                del self._reading[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._reading[key]
            self._keep(key, image)
        mine.set_result(image)
        return image

    def _keep(self, key: _Key, image: MedicalImage) -> None:
        for old in [other for other in self._images if other.path == key.path]:
            self._bytes -= self._images.pop(old).array.nbytes
        if image.array.nbytes > self._budget:
            return
        self._images[key] = image
        self._bytes += image.array.nbytes
        while self._bytes > self._budget or len(self._images) > MOST_IMAGES:
            _, oldest = self._images.popitem(last=False)
            self._bytes -= oldest.array.nbytes


def _key(path: Path | str) -> _Key | None:
    """Key of a file, or of a folder by the files in it; None if there is no such file."""
    if not str(path):
        return None
    try:
        real = Path(path).resolve(strict=True)
        return _Key(str(real), file_stamp(real))
    except OSError:
        return None


def file_stamp(path: Path) -> str:
    """Text that changes whenever a file, or a file of a folder, is written or replaced.

    Programs such as ``rsync -t`` replace a file by one of the same size and time, so the time of
    its last change (ctime) and its inode count as well.

    Raises:
        OSError: There is no such file.
    """
    stats = [path.stat()]
    if stat.S_ISDIR(stats[0].st_mode):
        stats += [entry.stat() for entry in sorted(path.iterdir())]
    numbers = [(one.st_ino, one.st_ctime_ns, one.st_mtime_ns, one.st_size) for one in stats]
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:24]
