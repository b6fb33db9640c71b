"""Bounded queues and abandoned work, through a real HTTP server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import uvicorn
from fastapi import FastAPI, Request

from lib.engine.runtime import raise_if_cancelled
from lib.errors import Cancelled
from lib.server.error_responses import ErrorResponses
from lib.server.infer import WorkQueue
from lib.server.middleware import UploadMiddleware
from sample_study.orthanc import free_port

LIMIT_S = 60


class Work:
    """Work that takes until it is told to end, in steps; notes what became of it."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.started: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []

    def of(self, name: str) -> Callable[[], str]:
        def work() -> str:
            self.started.append(name)
            try:
                while not self.may_end.wait(0.01):
                    raise_if_cancelled()
            except Cancelled:
                self.cancelled.append(name)
                raise
            self.ended.append(name)
            return name

        return work


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def queue() -> WorkQueue:
    return WorkQueue(workers=1, waiting=1)


@pytest.fixture
def port(work: Work, queue: WorkQueue) -> Iterator[int]:
    app = FastAPI()
    ErrorResponses().add_to(app)
    app.add_middleware(UploadMiddleware, max_bytes=1 << 20, stall_s=LIMIT_S)

    @app.get("/job/{name}")
    async def heavy(name: str, request: Request) -> str:
        return await queue.run(request, work.of(name))

    @app.get("/light")
    async def light() -> str:
        return "here"

    number = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=number, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield number
    work.may_end.set()
    server.should_exit = True
    thread.join(LIMIT_S)


def ask(port: int, path: str, more: str = "") -> socket.socket:
    """A client that has asked and not yet read the answer."""
    client = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode())
    return client


def test_beyond_the_queue_a_request_is_told_to_come_back(work: Work, queue: WorkQueue, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(requests.get, f"{url}/job/{name}", timeout=LIMIT_S) for name in "ab"]
        until(lambda: queue.pending == 2)
        refused = requests.get(f"{url}/job/c", timeout=LIMIT_S)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "2 requests of this kind" in refused.json()["detail"]
        assert requests.get(f"{url}/light", timeout=LIMIT_S).json() == "here"
        work.may_end.set()
        assert sorted(future.result().json() for future in running) == ["a", "b"]
    assert queue.pending == 0


def test_work_of_a_client_that_has_gone_stops_and_makes_room(work: Work, queue: WorkQueue, port: int) -> None:
    client = ask(port, "/job/gone")
    until(lambda: work.started == ["gone"])
    client.close()
    until(lambda: work.cancelled == ["gone"])
    until(lambda: queue.pending == 0)
    work.may_end.set()
    assert requests.get(f"http://127.0.0.1:{port}/job/next", timeout=LIMIT_S).json() == "next"
    assert work.ended == ["next"]


def test_a_body_that_is_too_large_ends_the_work_that_did_not_read_it(work: Work, port: int) -> None:
    with ask(port, "/job/large", "Transfer-Encoding: chunked\r\n") as client:
        until(lambda: work.started == ["large"])
        for _ in range(5):
            client.sendall(b"40000\r\n" + bytes(1 << 18) + b"\r\n")
        assert b"413" in client.recv(4096).split(b"\r\n")[0]
    assert work.cancelled == ["large"]


def test_who_has_gone_while_waiting_is_never_started(work: Work, queue: WorkQueue, port: int) -> None:
    first = ask(port, "/job/first")
    until(lambda: work.started == ["first"])
    for _ in range(20):
        client = ask(port, "/job/impatient")
        until(lambda: queue.pending == 2)
        client.close()
        until(lambda: queue.pending == 1)
    work.may_end.set()
    answer = b""
    while b'"first"' not in answer:
        answer += first.recv(4096)
    first.close()
    assert work.started == ["first"]


def test_a_server_that_ends_stops_its_work_and_takes_none(work: Work, queue: WorkQueue, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(requests.get, f"{url}/job/{name}", timeout=LIMIT_S) for name in "ab"]
        until(lambda: queue.pending == 2)
        until(lambda: len(work.started) == 1)
        queue.stop()
        answers = [future.result() for future in asked] + [requests.get(f"{url}/job/c", timeout=LIMIT_S)]
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "is being stopped" in answer.json()["detail"]
    assert (len(work.cancelled), work.ended) == (1, [])
