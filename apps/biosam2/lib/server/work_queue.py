"""Runs segmentations in threads, in bounded queues; stops the work of clients that have gone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import anyio
from fastapi import Request

from lib.engine.cancellation import Cancellation
from lib.errors import BusyError, Cancelled

T = TypeVar("T")

# Threads for clicks; the network itself runs one step at a time, the rest overlaps.
CLICK_WORKERS = 8
CLICK_QUEUE = 256
# Two volumes at once keep the network busy while one of them is read or written.
HEAVY_WORKERS = 2


class WorkQueue:
    """A bounded number of threads and of requests that wait for one, first come, first served.

    Args:
        name: Name for metrics.
        workers: Requests at once.
        waiting: Requests that may wait.
    """

    def __init__(self, name: str, workers: int, waiting: int):
        self.name = name
        self._workers = workers
        self._waiting = waiting
        self._pending = 0
        self._slots: anyio.CapacityLimiter | None = None
        self._threads: anyio.CapacityLimiter | None = None

    @property
    def pending(self) -> int:
        """Requests that run or wait."""
        return self._pending

    async def run(self, request: Request, work: Callable[[], T]) -> T:
        """Runs work for a client in a thread, and stops it at its next step when the client closes.

        Args:
            request: The client's request, whose body was read.
            work: What to do; calls ``raise_if_cancelled`` between its steps.

        Raises:
            BusyError: The queue is full.
            Cancelled: The client closed the connection.
        """
        if self._pending >= self._workers + self._waiting:
            raise BusyError(
                f"{self._pending} requests of this kind are running or waiting, which is the limit: "
                "try again in a few seconds"
            )
        self._pending += 1
        try:
            return await self._run(request, work)
        finally:
            self._pending -= 1

    async def _run(self, request: Request, work: Callable[[], T]) -> T:
        if self._slots is None or self._threads is None:
            # Made in the server's event loop.
            self._slots = anyio.CapacityLimiter(self._workers)
            self._threads = anyio.CapacityLimiter(self._workers)
        cancellation = Cancellation()

        def cancellable() -> T:
            with cancellation.applied():
                return work()

        async with _watched(request, cancellation) as waiting:
            with waiting:
                await self._slots.acquire_on_behalf_of(cancellation)
            if cancellation.is_requested:
                with contextlib.suppress(RuntimeError):
                    self._slots.release_on_behalf_of(cancellation)
                raise Cancelled("the client closed the connection")
            try:
                return await anyio.to_thread.run_sync(cancellable, limiter=self._threads)
            finally:
                self._slots.release_on_behalf_of(cancellation)


@contextlib.asynccontextmanager
async def _watched(request: Request, cancellation: Cancellation) -> AsyncIterator[anyio.CancelScope]:
    """Cancels when the client closes; the scope that it yields is for waiting before the work begins."""
    waiting = anyio.CancelScope()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        cancellation.cancel()
        waiting.cancel()

    error: BaseException | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            yield waiting
        except BaseException as caught:
            error = caught
        group.cancel_scope.cancel()
    if error is not None:
        raise error
