"""Every nucleus of a large slide takes minutes: work stops when the client hangs up or the server ends."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from tests.support.client import LIMIT_S
from tests.support.server import Server, copy_model_folder
from tests.support.slides import APERIO, paint, scatter, write_slide

SIDE, TIMES = 1024, 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server on one slide of 16 megapixels."""
    pixels = paint(SIDE, SIDE, scatter(SIDE, SIDE, 150, seed=6), seed=6)
    (tmp_path / "studies").mkdir()
    write_slide(tmp_path / "studies" / "large.svs", np.tile(pixels, (TIMES, TIMES, 1)), description=APERIO)
    conf = {"model_dir": str(copy_model_folder(tmp_path / "model"))}
    server = Server(tmp_path / "studies", tmp_path, conf).start()
    yield server
    server.stop()


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def _asked_for_everything(server: Server) -> socket.socket:
    """A client that has asked for the whole slide, of which a part is done."""
    body = json.dumps({"location": [0, 0], "size": [0, 0], "params": {}}).encode()
    client = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    head = "POST /infer/wsi/biosam2_pathology?image=large&output=dsa HTTP/1.1\r\nHost: localhost\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def is_under_way() -> bool:
        listed = requests.get(f"{server.url}/infer/progress", timeout=LIMIT_S).json()
        return any(0 < item["done"] < 1 for item in listed)

    _until(is_under_way)
    return client


def _parts(server: Server) -> tuple[int, int]:
    """Number of the last part of the slide that is done, and of all parts."""
    found = re.findall(r"part (\d+) of (\d+)", server.log)
    return int(found[-1][0]), int(found[-1][1])


def test_who_hangs_up_leaves_no_work_behind(server: Server) -> None:
    client = _asked_for_everything(server)
    client.close()
    done, _ = _parts(server)

    def is_idle() -> bool:
        metrics = requests.get(f"{server.url}/metrics", timeout=LIMIT_S).text
        return bool(re.search(r"^biosam2_heavy_pending 0(\.0)?$", metrics, re.M))

    _until(is_idle)
    stopped, count = _parts(server)
    # What ran when the client hung up may have ended; nothing further has begun.
    assert stopped <= done + 2 < count
    assert requests.get(f"{server.url}/infer/progress", timeout=LIMIT_S).json() == []
    assert server.alive


def test_a_server_that_is_told_to_end_does_not_finish_the_slide(server: Server) -> None:
    with _asked_for_everything(server) as client:
        done, _ = _parts(server)
        process = psutil.Process(server.pid)
        process.terminate()
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"the server is being stopped" in answer
    process.wait(LIMIT_S)
    stopped, count = _parts(server)
    assert stopped <= done + 2 < count
