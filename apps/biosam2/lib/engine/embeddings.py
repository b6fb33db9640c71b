"""Image embeddings, kept by what was encoded and not by who asked: a second click never encodes again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from lib.engine.network import Features


class EmbeddingCache:
    """The embeddings used last, within a budget of bytes. Safe to use from several threads.

    Args:
        budget: most bytes that are kept; an embedding larger than that is not kept at all.
    """

    def __init__(self, budget: int):
        self._budget = budget
        self._used = 0
        self._entries: OrderedDict[Hashable, Features] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Features | None:
        """The embedding of a key, which becomes the one used last; None when it is not kept."""
        with self._lock:
            features = self._entries.get(key)
            if features is not None:
                self._entries.move_to_end(key)
            return features

    def put(self, key: Hashable, features: Features) -> None:
        """Keeps an embedding, and lets go of those used least recently until all fit in the budget."""
        with self._lock:
            if (old := self._entries.pop(key, None)) is not None:
                self._used -= old.nbytes
            self._entries[key] = features
            self._used += features.nbytes
            while self._used > self._budget:
                _, dropped = self._entries.popitem(last=False)
                self._used -= dropped.nbytes

    @property
    def used(self) -> int:
        """Bytes that are kept now."""
        return self._used

    def __len__(self) -> int:
        return len(self._entries)
