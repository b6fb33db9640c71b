"""Runs segmentations in threads, in bounded queues; stops the work of clients that have gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from fastapi import Request

from lib.engine.cancellation import Cancellation, raise_if_cancelled
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
        workers: Requests at once.
        waiting: Requests that may wait.
    """

    def __init__(self, workers: int, waiting: int):
        self._most = workers + waiting
        self._threads = anyio.CapacityLimiter(workers)
        # Requests that run or wait.
        self.pending = 0

    async def run(self, request: Request, work: Callable[[], T]) -> T:
        """Runs work for a client in a thread, and stops it at its next step when the client closes.

        Args:
            request: The client's request, whose body was read.
            work: What to do; calls ``raise_if_cancelled`` between its steps.

        Raises:
            BusyError: The queue is full.
            Cancelled: The client closed the connection.
        """
        if self.pending >= self._most:
            raise BusyError(
                f"{self.pending} requests of this kind are running or waiting, which is the limit: "
                "try again in a few seconds"
            )
        self.pending += 1
        try:
            return await self._run(request, work)
        finally:
            self.pending -= 1

    async def _run(self, request: Request, work: Callable[[], T]) -> T:
        cancellation = Cancellation()
        outcome: list[T] = []

        def cancellable() -> T:
            with cancellation.applied():
                raise_if_cancelled()
                return work()

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            cancellation.cancel()
            # Ends the wait for a thread; work in a thread is waited for.
            group.cancel_scope.cancel()

        error: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                outcome.append(await anyio.to_thread.run_sync(cancellable, limiter=self._threads))
            except Exception as caught:
                # Raised below: a task group would wrap it.
                error = caught
            group.cancel_scope.cancel()
        if error is not None:
            raise error
        if not outcome:
            raise Cancelled("the client closed the connection")
        return outcome[0]
