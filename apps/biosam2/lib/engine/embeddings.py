"""Image embeddings on disk: prepared images need no encoder."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import zipfile
import zlib
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from lib.engine.network import Features
from lib.errors import StorageFullError
from lib.files import replacing, storage_errors, sweep

logger = logging.getLogger(__name__)

# Part of every file's name: raised where network_image, Network.encode or the file's content changes.
_FORMAT = 1
_GUIDE = "guide"
# Share of the budget that is written between two counts of all files: other processes write, too.
_UNCOUNTED = 0.01


class EmbeddingFolder:
    """Embeddings on disk in half precision, one file for each frame; those used least recently go first.

    A file is whole or not there. One that is damaged counts as not there, and is deleted.

    Args:
        folder: Folder, which is made where it is missing.
        budget: Most bytes of its files.

    Attributes:
        loaded: Number of embeddings that were read.
    """

    def __init__(self, folder: Path, budget: int):
        self.loaded = 0
        self._folder = folder
        self._budget = budget
        # Bytes of all files, once they were counted.
        self._used: int | None = None
        self._uncounted = 0

    def load(self, key: Hashable) -> Features | None:
        """An embedding on the CPU, its maps in float16; None where there is no whole file of it."""
        path = self._path(key)
        try:
            # Read at once, each array is compared with its checksum.
            with zipfile.ZipFile(path) as archive:
                arrays = {
                    name.removesuffix(".npy"): torch.from_numpy(
                        np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                    )
                    for name in archive.namelist()
                }
            guide = arrays.pop(_GUIDE, None)
            maps = tuple(arrays[str(number)] for number in range(len(arrays)))
            # In a folder that cannot be written embeddings are still read.
            with suppress(OSError):
                os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            logger.warning("Embedding %s is damaged and is made again: %s", path.name, error)
            with suppress(OSError):
                path.unlink()
            return None
        self.loaded += 1
        return Features(maps, guide)

    def save(self, key: Hashable, features: Features, since: float) -> None:
        """Writes an embedding.

        Args:
            key: Key.
            features: Embedding of one frame.
            since: Time in seconds since 1970; files that were used after it stay.

        Raises:
            StorageFullError: The budget or the disk is full.
        """
        arrays = {str(number): level.half().cpu().numpy() for number, level in enumerate(features.maps)}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            logger.warning("An embedding was not saved: it has values that half precision cannot hold")
            return
        if features.guide is not None:
            arrays[_GUIDE] = features.guide.float().cpu().numpy()
        with storage_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            used = self._make_room(sum(array.nbytes for array in arrays.values()), since)
            path = self._path(key)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)
            size = path.stat().st_size
            self._used, self._uncounted = used + size, self._uncounted + size

    def _path(self, key: Hashable) -> Path:
        return self._folder / f"{hashlib.sha256(repr((_FORMAT, key)).encode()).hexdigest()}.npz"

    def _make_room(self, nbytes: int, since: float) -> int:
        """Bytes of the files that stay when there is room for others."""
        is_counted = self._uncounted + nbytes <= _UNCOUNTED * self._budget
        if self._used is not None and is_counted and self._used + nbytes <= self._budget:
            return self._used
        self._uncounted = 0
        sweep(self._folder)
        found = []
        for path in self._folder.glob("*.npz"):
            with suppress(FileNotFoundError):  # deleted by another process
                found.append((path.stat(), path))
        used = sum(stat.st_size for stat, _ in found)
        for stat, path in sorted(found, key=lambda item: item[0].st_mtime):
            if used + nbytes <= self._budget or stat.st_mtime >= since:
                break
            path.unlink(missing_ok=True)
            used -= stat.st_size
        if used + nbytes > self._budget:
            raise StorageFullError(
                f"embedding_disk_gb is full: {used / 1e9:.3g} of {self._budget / 1e9:.3g} GB hold embeddings "
                "of this run; raise it, or prepare fewer images"
            )
        return used
