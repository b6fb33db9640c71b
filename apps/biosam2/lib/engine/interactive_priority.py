"""Background work waits while a person waits: across processes, by a file that is there meanwhile."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

FLAG_FILE = "interactive"
# After so many seconds the file is what a killed server left behind, or somebody's very long propagation.
LONGEST_S = 60.0
_POLL_S = 0.05


class Courtesy:
    """Who waits, and for whom others wait.

    Args:
        model_dir: the folder that the server and its background processes share.
    """

    def __init__(self, model_dir: Path):
        self._flag = model_dir / FLAG_FILE
        self._lock = threading.Lock()
        self._waiting = 0

    @contextlib.contextmanager
    def interactive(self) -> Iterator[None]:
        """A person waits for what is done within."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def give_way(self) -> None:
        """Returns when nobody waits; for background work, between two of its steps."""
        while self._somebody_waits():
            time.sleep(_POLL_S)

    def _count(self, change: int) -> None:
        with self._lock:
            before = self._waiting
            self._waiting += change
            try:
                if before == 0:
                    self._flag.touch()
                elif self._waiting == 0:
                    self._flag.unlink(missing_ok=True)
            except OSError as error:
                # A folder that cannot be written costs the background its manners and nobody a mask.
                logger.debug("No courtesy: %s", error)

    def _somebody_waits(self) -> bool:
        try:
            return time.time() - self._flag.stat().st_mtime < LONGEST_S
        except OSError:
            return False
