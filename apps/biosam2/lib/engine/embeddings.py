"""Image embeddings, kept by content: a second click on a frame does not encode it again."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from cachetools import LRUCache

from lib.engine.network import Features


class EmbeddingCache:
    """The embeddings used last, within a budget of bytes. Safe to use from several threads.

    Args:
        budget: Most bytes that are kept; a larger embedding is not kept at all.

    Attributes:
        encoded: Number of frames that networks have encoded.
    """

    def __init__(self, budget: int):
        self.encoded = 0
        self._entries: LRUCache[Hashable, Features] = LRUCache(budget, getsizeof=lambda item: item.nbytes)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Features | None:
        """The embedding of a key, which becomes the one used last; None when it is not kept."""
        with self._lock:
            found: Features | None = self._entries.get(key)
            return found

    def put(self, key: Hashable, features: Features) -> None:
        """Keeps an embedding, and drops those used least recently until all fit in the budget."""
        with self._lock:
            self._entries.pop(key, None)
            if features.nbytes <= self._entries.maxsize:
                self._entries[key] = features

    @property
    def budget(self) -> int:
        """Most bytes that are kept."""
        return int(self._entries.maxsize)

    @property
    def used(self) -> int:
        """Bytes that are kept now."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)
