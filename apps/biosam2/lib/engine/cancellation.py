"""Stops work whose result is not needed any more, at its next step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lib.errors import Cancelled


class Cancellation:
    """Tells one piece of work to stop. Safe to use from several threads."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def cancel(self) -> None:
        """Makes the next ``raise_if_cancelled`` of the work raise."""
        self._requested.set()

    @property
    def is_requested(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._requested.is_set()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Makes this object the one that ``raise_if_cancelled`` asks, in the calling thread."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def is_cancelled() -> bool:
    """Whether the calling thread's work was told to stop."""
    current = _current.get()
    return current is not None and current.is_requested


def raise_if_cancelled() -> None:
    """Called between slices and tiles. Without an applied ``Cancellation`` it does nothing.

    Raises:
        Cancelled: ``cancel`` was called.
    """
    if is_cancelled():
        raise Cancelled("the client closed the connection, or the run was stopped")
