"""Where and in which number format a network runs."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib.engine.registry import DeviceType
from lib.errors import DeviceError
from lib.settings import Precision

logger = logging.getLogger(__name__)

# Of glibc's malloc.h: blocks above the threshold are mapped anew each time; 32 MiB is the highest it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20
_KEPT_BYTES = 1 << 30

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Runtime:
    """One device: its number format and its lock.

    A network is used under the lock only, one step (a frame encoded, a mask decoded) at a time, so that a
    click is never behind more than one step of somebody else's propagation.

    Args:
        device: a torch device.
        precision: of ``--conf precision``; ``auto`` takes bf16 where the hardware has it.

    Raises:
        DeviceError: for fp16 on a CPU, where torch lacks kernels for it.
    """

    def __init__(self, device: torch.device, precision: Precision):
        if precision == "fp16" and device.type == "cpu":
            raise DeviceError("precision fp16 does not run on a CPU; use auto, fp32 or bf16")
        self.device = device
        self.dtype = _best_dtype(device) if precision == "auto" else _DTYPES[precision]
        self._lock = threading.Lock()

    @property
    def type(self) -> DeviceType:
        """``cpu`` or ``cuda``."""
        return "cuda" if self.device.type == "cuda" else "cpu"

    @contextmanager
    def step(self) -> Iterator[None]:
        """Holds the device for one step, in inference mode and in the number format of this runtime."""
        with (
            self._lock,
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32),
        ):
            yield


def keep_freed_memory() -> None:
    """Lets the process keep large blocks that it freed, where the C library is glibc.

    By default each large tensor's memory goes back to the system and comes again page by page: a tenth to an
    eighth of the time of encoding a frame on a CPU (0.64 s and 0.56 s at 1024 pixels on two cores).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def available_devices() -> list[str]:
    """The names that a request may give, best first."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] + ["cpu"]


def resolve_device(name: str | None) -> torch.device:
    """The torch device of a name from a request or a setting.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:N``; None, empty or ``auto`` for the best there is.

    Raises:
        DeviceError: for a device that does not exist here, with those that do.
    """
    names = available_devices()
    if name is None or name in ("", "auto"):
        return torch.device(names[0])
    if not isinstance(name, str) or (name not in names and not (name == "cuda" and len(names) > 1)):
        raise DeviceError(f"device {name!r} does not exist here; there is {', '.join(names)}")
    return torch.device("cuda:0" if name == "cuda" else name)


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    # Without the instructions bf16 is emulated, several times slower than fp32.
    try:
        capabilities = torch.cpu.get_capabilities()
    except AttributeError:
        return False
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
