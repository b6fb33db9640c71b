"""The process that MONAI Label starts for a scoring: told from the server's, and made to give way to it."""

from __future__ import annotations

import logging
import os
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor

import psutil
import torch

logger = logging.getLogger(__name__)

# The module that MONAI Label runs in a process of its own for each scoring.
_RUNNER = "monailabel.interfaces.utils.app"
# Of the cores, as many as leave the rest to clicks: they use as many as torch likes.
_SHARE_OF_CORES = 4
# While the process imports, and of its thread that writes: a tenth of a core that others want.
_NICENESS = 10


def is_own_process() -> bool:
    """Whether this process was started for one scoring, and is not the server."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None) == _RUNNER


def give_way(threads: int) -> Executor:
    """Gives this process the cores that nobody else wants, and few threads.

    Args:
        threads: of the network, by ``--conf threads``; 0 for a quarter of the cores, at least one.

    Returns:
        One thread that gives way less: for what others wait for. Linux has priorities for threads, which
        each inherits from the one that starts it.
    """
    lower_priority(os.getpid())
    urgent = ThreadPoolExecutor(1, thread_name_prefix="urgent")
    urgent.submit(threading.get_native_id).result()
    _take_what_is_left()
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // _SHARE_OF_CORES))
    return urgent


def lower_priority(pid: int) -> None:
    """Makes a process give way to others of the usual priority; one that has ended is left alone.

    On Linux, threads that it has already keep their priority, so the sooner the better.

    Args:
        pid: of the process.
    """
    try:
        process = psutil.Process(pid)
        if os.name == "nt":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            process.nice(max(_NICENESS, process.nice()))
    except (OSError, psutil.Error) as error:
        logger.info("The priority of process %d stays as it is: %s", pid, error)


def _take_what_is_left() -> None:
    """The lowest priority there is, for this thread and those that it starts."""
    try:
        if sys.platform == "linux":
            # The lowest nice value still takes one share in seventy, in slices that a click has to wait for.
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        psutil.Process().nice(psutil.IDLE_PRIORITY_CLASS if os.name == "nt" else 19)
    except (OSError, psutil.Error) as error:
        logger.info("The priority of this process stays as it is: %s", error)
