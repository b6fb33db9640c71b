"""Noticing that files of a folder come, go, or are renamed: many at once are looked at once."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

logger = logging.getLogger(__name__)

# Seconds without news after which a folder is looked at; while news keep coming, the longest wait.
_QUIET_S, _LONGEST_S = 0.5, 2.0
_COME_OR_GONE = ("created", "deleted", "moved")


class FolderWatch(FileSystemEventHandler):
    """Calls back from a thread of its own when files have come or gone, until it is stopped.

    Args:
        folder: with all folders in it.
        read: a file of which it matters as well when it is written to.
        look: is given the files, and folders, that have come or gone since it was called last.
        polling: whether the folder is gone through each second: the system tells nothing of a network's disk.
    """

    def __init__(self, folder: Path, read: Path, look: Callable[[set[Path]], None], polling: bool = False):
        self._read = read
        self._look = look
        self._news: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="folder-watch", daemon=True)
        self._observer = PollingObserver() if polling else Observer()
        self._observer.schedule(self, str(folder), recursive=True)
        self._observer.start()
        self._thread.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by the observer, in its thread."""
        paths = [Path(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        if event.event_type in _COME_OR_GONE or (event.event_type == "modified" and self._read in paths):
            for path in paths:
                self._news.put(path)

    def stop(self) -> None:
        """Ends the watch; returns when nobody is called any more."""
        self._observer.stop()
        self._observer.join()
        self._news.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            news = self._next()
            ended = None in news
            try:
                self._look({path for path in news if path is not None})
            except Exception:
                # Such as a disk that is away for a moment; the watch goes on to the next news.
                logger.exception("%d files have come or gone, and cannot be looked at", len(news))

    def _next(self) -> set[Path | None]:
        news = {self._news.get()}
        latest = time.monotonic() + _LONGEST_S
        with suppress(queue.Empty):
            while None not in news and (left := latest - time.monotonic()) > 0:
                news.add(self._news.get(timeout=min(_QUIET_S, left)))
        return news
