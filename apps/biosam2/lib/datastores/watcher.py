"""Notices files that appear, vanish or are renamed in a folder; many changes are reported together."""

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

# Seconds without an event after which changes are reported; and the longest wait while events go on.
_QUIET_S, _LONGEST_S = 0.5, 2.0
_COME_OR_GONE = ("created", "deleted", "moved")


class FolderWatch(FileSystemEventHandler):
    """Calls a function from a thread of its own when files have appeared or vanished.

    Args:
        folder: Folder, watched with its sub-folders.
        read: File whose writes are reported as well.
        look: Function called with the files and folders that have appeared or vanished since the last call.
        polling: Whether the folder is listed every second: network disks send no events.
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
        """Ends the watch; afterwards the function is not called any more."""
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
                # Such as a disk that is missing for a moment; the watch goes on.
                logger.exception("%d files have changed and cannot be read", len(news))

    def _next(self) -> set[Path | None]:
        news = {self._news.get()}
        latest = time.monotonic() + _LONGEST_S
        with suppress(queue.Empty):
            while None not in news and (left := latest - time.monotonic()) > 0:
                news.add(self._news.get(timeout=min(_QUIET_S, left)))
        return news
