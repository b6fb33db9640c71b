"""Bodies that are too large, and those that stall, through a real HTTP server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests
import uvicorn
from fastapi import FastAPI, UploadFile

from lib.server.middleware import UploadMiddleware
from sample_study.orthanc import free_port

LIMIT_S = 60
# The parser leaves the temporary file of a part that was cut off to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
HEAD = (
    b"PUT /file HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=a\r\n"
    b"Content-Length: 1000\r\n\r\n--a\r\n"
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = FastAPI()

    @app.put("/file")
    def take(file: UploadFile) -> int:
        return len(file.file.read())

    app.add_middleware(UploadMiddleware, max_bytes=1 << 20, stall_s=0.5)
    number = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=number, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    give_up = time.monotonic() + LIMIT_S
    while not server.started:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join(LIMIT_S)


def test_an_upload_that_stalls_is_dropped(port: int) -> None:
    stalled = [socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) for _ in range(50)]
    for client in stalled:
        client.sendall(HEAD)
    for client in stalled:
        answer = b""
        while chunk := client.recv(4096):
            answer += chunk
        assert b"408" in answer.split(b"\r\n")[0]
        client.close()


def test_a_body_of_any_kind_is_bounded(port: int) -> None:
    url = f"http://127.0.0.1:{port}/file"

    def send(size: int) -> requests.Response:
        return requests.put(url, files={"file": ("x", bytes(size))}, timeout=LIMIT_S)

    assert send(1 << 19).json() == 1 << 19
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
        client.sendall(HEAD.replace(b"1000", b"99999999999"))
        assert b"413" in client.recv(4096).split(b"\r\n")[0]
    # Without a length, the bytes count.
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
        client.sendall(
            HEAD.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked").replace(b"--a\r\n", b"")
        )
        part = b'--a\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        client.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        chunk = bytes(1 << 18)
        for _ in range(5):
            client.sendall(b"40000\r\n" + chunk + b"\r\n")
        assert b"413" in client.recv(4096).split(b"\r\n")[0]
    assert send(10).json() == 10
