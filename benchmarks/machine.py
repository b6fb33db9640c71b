"""The machine of a measurement."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

# Load per core above which other work disturbs timings.
_BUSY_SHARE = 0.4


def machine() -> dict[str, str]:
    """Processor, cores, system and versions as text."""
    return {
        "processor": processor_name(_read("/proc/cpuinfo")) or platform.processor() or platform.machine(),
        "cores": str(cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "load before the run": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
    }


def cores() -> int:
    """Number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_warning() -> str | None:
    """A warning if other work is running, else None."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    if load <= _BUSY_SHARE * cores():
        return None
    return f"The machine is busy (load {load:.1f} on {cores()} cores): these timings are too long."


def processor_name(cpuinfo: str) -> str | None:
    """The first ``model name`` of a ``/proc/cpuinfo`` text."""
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, flags=re.MULTILINE)
    return match.group(1).strip() if match else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
