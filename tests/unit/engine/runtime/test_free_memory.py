"""What threads have freed goes back to the system, at a moment without a request."""

import subprocess
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


# Free blocks of 8 MB between small ones that stay, as embeddings and answers leave them. glibc puts blocks of
# a size on its heap once it has seen one of that size freed.
_BLOCKS = """
import gc, psutil, sys, torch
from lib.engine.runtime import return_large_blocks
if sys.argv[1] == "returned":
    return_large_blocks()
first = torch.ones(30 << 20, dtype=torch.uint8)
del first
before = psutil.Process().memory_info().rss
pairs = [(torch.ones(8 << 20, dtype=torch.uint8), torch.ones(60_000, dtype=torch.uint8)) for _ in range(20)]
kept = [small for _, small in pairs]
del pairs
gc.collect()
print((psutil.Process().memory_info().rss - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
@pytest.mark.parametrize(("how", "least", "most"), [("returned", -10, 20), ("kept", 120, 200)])
def test_large_blocks_go_back_when_they_are_freed(how, least, most):
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKS, how], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    assert least <= int(done.stdout) <= most


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
