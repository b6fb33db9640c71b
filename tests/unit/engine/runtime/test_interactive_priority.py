import os
import signal
import subprocess
import sys
import threading

import pytest

from lib.engine.runtime import LOCK_FILE, InteractivePriority

HOLDS = """
import sys, time
from pathlib import Path
from lib.engine.runtime import InteractivePriority
with InteractivePriority(Path(sys.argv[1])).interactive():
    print("held", flush=True)
    time.sleep(60)
"""


def paused(folder):
    """Starts a background worker; returns the event that it has gone on, and the thread."""
    done = threading.Event()
    worker = threading.Thread(target=lambda: (InteractivePriority(folder).give_way(), done.set()))
    worker.start()
    return done, worker


def test_without_requests_background_work_goes_on_and_nothing_is_written(tmp_path):
    InteractivePriority(tmp_path).give_way()
    assert list(tmp_path.iterdir()) == []


def test_background_work_goes_on_after_the_last_request(tmp_path):
    server = InteractivePriority(tmp_path)
    for _ in range(2):
        with server.interactive():
            with server.interactive():
                done, worker = paused(tmp_path)
            assert not done.wait(0.2)
        worker.join(10)
        assert done.is_set()


def test_background_work_stays_paused_however_long_requests_overlap(tmp_path):
    with InteractivePriority(tmp_path).interactive():
        os.utime(tmp_path / LOCK_FILE, (0, 0))  # as if the first request began long ago
        done, worker = paused(tmp_path)
        assert not done.wait(0.2)
    worker.join(10)


def test_a_request_that_fails_ends_the_pause(tmp_path):
    with pytest.raises(ValueError, match="bad prompt"), InteractivePriority(tmp_path).interactive():
        raise ValueError("bad prompt")
    InteractivePriority(tmp_path).give_way()


def test_a_killed_server_ends_the_pause(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert server.stdout.readline() == b"held\n"
    done, worker = paused(tmp_path)
    assert not done.wait(0.2)
    server.send_signal(signal.SIGKILL)
    server.wait(10)
    worker.join(10)
    assert done.is_set()
    server.stdout.close()


def test_requests_succeed_where_the_folder_cannot_be_written(tmp_path):
    with InteractivePriority(tmp_path / "absent").interactive():
        InteractivePriority(tmp_path / "absent").give_way()
    assert not (tmp_path / "absent").exists()
