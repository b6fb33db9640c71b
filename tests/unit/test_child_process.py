"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.support.server import APP

LIMIT_S = 60
SERVER = """
import os, subprocess, sys, time
from lib.child_process import become_server
become_server()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline().strip(), flush=True)
time.sleep(600)
"""
CHILD = """
import os, subprocess, sys, time
from lib.child_process import end_with_server
end_with_server()
if len(sys.argv) == 1:
    # A process of a process, as each rank of a training is.
    child = subprocess.Popen([sys.executable, "-c", sys.orig_argv[2], "rank"])
    print(child.pid, flush=True)
time.sleep(600)
"""


WORKERS = """
import multiprocessing, time
from lib.child_process import become_server
if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=become_server).start()
    time.sleep(600)
"""


def test_several_server_processes_are_refused_with_a_reason() -> None:
    environment = {**os.environ, "PYTHONPATH": str(APP)}
    command = [sys.executable, "-c", WORKERS]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False
    )
    assert done.returncode == -signal.SIGTERM, "the parent ends as well"
    assert "SettingsError: --workers and WEB_CONCURRENCY must be 1" in done.stderr


def test_background_processes_end_with_a_killed_server() -> None:
    environment = {**os.environ, "PYTHONPATH": str(APP)}
    command = [sys.executable, "-c", SERVER, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        children = [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]
        assert len(children) == 2
        server.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, LIMIT_S)
    assert alive == []
    assert len(gone) == 2


def test_a_process_that_starts_after_the_server_was_killed_ends_at_once() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    environment = {**os.environ, "PYTHONPATH": str(APP), "BIOSAM2_SERVER_PID": str(ended.pid)}
    late = subprocess.run(
        [sys.executable, "-c", CHILD, "rank"], env=environment, timeout=LIMIT_S, check=False
    )
    assert late.returncode == -signal.SIGKILL


def test_a_program_that_no_server_started_goes_on() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "BIOSAM2_SERVER_PID"}
    script = "from lib.child_process import end_with_server; end_with_server(); print('done')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "PYTHONPATH": str(APP)},
        capture_output=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert done.stdout.strip() == b"done"


@pytest.mark.skipif(os.name == "nt", reason="Windows has classes of priority and no nice values")
def test_a_background_process_gives_way_and_is_never_raised():
    script = "import os; from lib.child_process import lower_priority; lower_priority(); print(os.nice(0))"
    for start in (0, 3, 15):
        command = [sys.executable, "-c", f"import os; os.nice({start}); {script}"]
        environment = {**os.environ, "PYTHONPATH": str(APP)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert int(done.stdout) == max(10, os.nice(0) + start)
