"""Pauses background work while interactive requests run, in this process and in others."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

LOCK_FILE = "interactive"
_POLL_S = 0.05
# Background work holds the lock for microseconds, to see that nobody else does.
_LONGEST_WAIT_S = 0.1
_RETRY_S = 0.001


class InteractivePriority:
    """A lock file that a server holds while it answers requests, and that background work waits for.

    The operating system releases the lock of a process that was killed. Best effort: in a folder that cannot
    be written background work does not pause, and requests still succeed.

    Args:
        model_dir: Folder that the server and its background processes share.
    """

    def __init__(self, model_dir: Path):
        self._path = model_dir / LOCK_FILE
        # Requests are answered in threads: the first takes the lock, the last releases it.
        self._lock = FileLock(self._path, thread_local=False)
        self._counting = threading.Lock()
        self._requests = 0

    @contextlib.contextmanager
    def interactive(self) -> Iterator[None]:
        """Pauses background work until it ends."""
        with self._counting:
            self._requests += 1
            if self._requests == 1:
                self._acquire()
        try:
            yield
        finally:
            with self._counting:
                self._requests -= 1
                if self._requests == 0:
                    self._lock.release()

    @property
    def is_busy(self) -> bool:
        """Whether an interactive request runs in this process."""
        return self._requests > 0

    def give_way(self) -> None:
        """Returns once no interactive request runs; background work calls it between two steps."""
        while self.is_busy or self._is_held():
            time.sleep(_POLL_S)

    def _acquire(self) -> None:
        if not self._path.parent.is_dir():
            return
        try:
            self._lock.acquire(timeout=_LONGEST_WAIT_S, poll_interval=_RETRY_S)
        except (OSError, NotImplementedError) as error:  # Timeout is an OSError
            logger.debug("Background work does not pause: %s", error)

    def _is_held(self) -> bool:
        if not self._path.is_file():
            return False
        try:
            FileLock(self._path).acquire(blocking=False).lock.release()
        except Timeout:
            return True
        except (OSError, NotImplementedError):
            return False
        return False
