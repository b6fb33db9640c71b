"""The process that MONAI Label starts for a scoring: told from the server's, and made to give way to it."""

from __future__ import annotations

import logging
import os
import sys

import psutil
import torch

logger = logging.getLogger(__name__)

# The module that MONAI Label runs in a process of its own for each scoring.
_RUNNER = "monailabel.interfaces.utils.app"
# Of the cores, as many as leave the rest to clicks: they use as many as torch likes.
_SHARE_OF_CORES = 4


def is_own_process() -> bool:
    """Whether this process was started for one scoring, and is not the server."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None) == _RUNNER


def give_way(threads: int) -> None:
    """Gives this process the cores that nobody else wants, and few threads.

    Args:
        threads: of the network, by ``--conf threads``; 0 for a quarter of the cores, at least one.
    """
    lower_priority(os.getpid())
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // _SHARE_OF_CORES))


def lower_priority(pid: int) -> None:
    """Gives a process the cores that nobody else wants; one that has ended is left alone.

    Threads that it has already keep their priority on Linux, so the sooner the better.

    Args:
        pid: of the process.
    """
    try:
        if sys.platform == "linux":
            # The lowest nice value still takes one share in seventy, in slices that a click has to wait for.
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        lowest = psutil.IDLE_PRIORITY_CLASS if os.name == "nt" else 19
        psutil.Process(pid).nice(lowest)
    except (OSError, psutil.Error) as error:
        logger.info("The priority of process %d stays as it is: %s", pid, error)
