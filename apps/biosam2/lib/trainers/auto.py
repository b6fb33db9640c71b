"""Training by itself: after so many new labels, in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class AutoTrain:
    """Counts labels and starts trainings.

    Args:
        after: new labels, of as many images, after which a training starts; 0 for never.
        start: starts one; False where one runs already, and then the labels count for the next.
    """

    def __init__(self, after: int, start: Callable[[], bool]):
        self._after = after
        self._start = start
        self._new: set[str] = set()
        self._lock = threading.Lock()

    def label_saved(self, image_id: str) -> None:
        """A person has saved a final label of an image."""
        if not self._after:
            return
        with self._lock:
            self._new.add(image_id)
            if len(self._new) < self._after:
                return
            if self._start():
                logger.info("A training starts after %d new labels", len(self._new))
                self._new.clear()
