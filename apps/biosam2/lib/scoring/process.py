"""MONAI Label's worker processes: how to recognise one, and its low scheduling priority."""

from __future__ import annotations

import logging
import os
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor

import psutil
import torch

logger = logging.getLogger(__name__)

# The module that MONAI Label runs in a process for each training, scoring and batch inference.
_WORKER_MODULE = "monailabel.interfaces.utils.app"
# Share of the cores used for scoring; clicks use as many as torch takes.
_SHARE_OF_CORES = 4
# Nice value during imports and of the writing thread: about a tenth of a contended core.
_NICENESS = 10


def is_worker_process() -> bool:
    """Whether MONAI Label started this process for one task; False in the server."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None) == _WORKER_MODULE


def give_way(threads: int) -> Executor:
    """Lowers the priority of this process to idle and limits its threads.

    Args:
        threads: Threads of the network (``--conf threads``); 0 for a quarter of the cores, at least one.

    Returns:
        One thread with a higher priority, for work that other processes wait for. On Linux, priorities belong
        to threads, and new threads inherit them.
    """
    lower_priority(os.getpid())
    urgent = ThreadPoolExecutor(1, thread_name_prefix="urgent")
    urgent.submit(threading.get_native_id).result()
    _set_idle_priority()
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // _SHARE_OF_CORES))
    return urgent


def lower_priority(pid: int) -> None:
    """Lowers the priority of a process; nothing happens if it has ended.

    On Linux, threads that exist already keep their priority, so call it early.
    """
    try:
        process = psutil.Process(pid)
        if os.name == "nt":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            process.nice(max(_NICENESS, process.nice()))
    except (OSError, psutil.Error) as error:
        logger.info("Priority of process %d not changed: %s", pid, error)


def _set_idle_priority() -> None:
    """Sets the lowest priority for this thread and the threads that it starts."""
    try:
        if sys.platform == "linux":
            # Even the lowest nice value takes one share in seventy, in time slices that delay clicks.
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        psutil.Process().nice(psutil.IDLE_PRIORITY_CLASS if os.name == "nt" else 19)
    except (OSError, psutil.Error) as error:
        logger.info("Priority of this process not changed: %s", error)
