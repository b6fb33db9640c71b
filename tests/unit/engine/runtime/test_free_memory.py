"""What threads have freed goes back to the system, at a moment without a request."""

import sys
import threading
import time

import psutil
import pytest

from lib.engine import runtime
from lib.engine.runtime import InteractivePriority, release_free_memory, release_free_memory_regularly

LIMIT_S = 60


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_free_memory_goes_back():
    kept = []

    def work():
        blocks = [bytes(60_000) for _ in range(2000)]
        kept.append(blocks[::50])  # in the way of what the allocator gives back by itself

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = psutil.Process().memory_info().rss
    release_free_memory()
    assert psutil.Process().memory_info().rss < before - (20 << 20)


def test_a_request_is_waited_for_but_not_for_ever(tmp_path, monkeypatch):
    priority, times = InteractivePriority(tmp_path), []
    monkeypatch.setattr(runtime, "release_free_memory", lambda: times.append(priority.is_busy))
    with priority.interactive():
        release_free_memory_regularly(priority, 0.3)
        time.sleep(0.4)
        assert times == []
    give_up = time.monotonic() + LIMIT_S
    while not times:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert times[0] is False
    with priority.interactive():
        while True not in times:
            assert time.monotonic() < give_up
            time.sleep(0.01)
