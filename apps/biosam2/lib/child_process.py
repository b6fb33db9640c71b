"""One server process, and its background processes, which give way to it and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import psutil

from lib.errors import SettingsError
from lib.files import is_running

# Environment variable with the server's process id; MONAI Label hands the environment to its processes.
SERVER_PID = "BIOSAM2_SERVER_PID"
_INTERVAL_S = 0.5
# A process of this nice value gets a tenth of a core that a click wants as well.
_NICENESS = 10


def become_server() -> None:
    """Makes this process the one that its background processes end with.

    Raises:
        SettingsError: The server is one of several processes (``--workers``).
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        # Otherwise uvicorn starts another process for each one that ends.
        os.kill(parent.pid, signal.SIGTERM)
        raise SettingsError(
            "--workers and WEB_CONCURRENCY must be 1: queues, trainings and caches belong to one process; "
            "start one server for each project, each on a port of its own"
        )
    os.environ[SERVER_PID] = str(os.getpid())


def belongs_to_server() -> bool:
    """Whether this process is the server or was started by it, directly or not."""
    return SERVER_PID in os.environ


def lower_priority() -> None:
    """Lets clicks go first where this background process and the server want the same core.

    Call it early: on Linux a priority belongs to a thread, and threads inherit it when they start.
    """
    process = psutil.Process()
    if os.name == "nt":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        process.nice(max(_NICENESS, process.nice()))


def end_with_server() -> None:
    """Ends this background process when its parent ends: the server, or the process that the server started.

    Nothing happens in the server itself and in a program that no server started. Unfinished work is lost, as
    after a crash: training goes on from its last checkpoint, and only complete files are published.
    """
    server = os.environ.get(SERVER_PID, "")
    if not server.isdigit() or int(server) == os.getpid():
        return
    if not is_running(int(server)):
        os.kill(os.getpid(), signal.SIGKILL)
    # The system's own signal at a parent's end (PR_SET_PDEATHSIG) comes when the thread that started this
    # process ends, which is earlier than the server.
    threading.Thread(target=_watch, args=(os.getppid(),), name="end-with-server", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL_S)
    os.kill(os.getpid(), signal.SIGKILL)
