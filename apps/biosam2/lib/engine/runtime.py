"""Where and in which number format a network runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib.engine.cancellation import raise_if_cancelled
from lib.engine.fifo_lock import FifoLock
from lib.engine.registry import DeviceType
from lib.errors import DeviceError
from lib.settings import Precision

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Runtime:
    """One device: its number format and its lock.

    A network is used under the lock only, one step (a frame encoded, a mask decoded) at a time and in turn,
    so that a click is never behind more than one step of each propagation.

    Args:
        device: Torch device.
        precision: Value of ``--conf precision``; ``auto`` takes bf16 where the hardware has it.

    Raises:
        DeviceError: for fp16 on a CPU, where torch lacks kernels for it.
    """

    def __init__(self, device: torch.device, precision: Precision):
        if precision == "fp16" and device.type == "cpu":
            raise DeviceError("precision fp16 does not run on a CPU; use auto, fp32 or bf16")
        self.device = device
        self.dtype = _best_dtype(device) if precision == "auto" else _DTYPES[precision]
        self._lock = FifoLock()

    @property
    def type(self) -> DeviceType:
        """``cpu`` or ``cuda``."""
        return "cuda" if self.device.type == "cuda" else "cpu"

    @contextmanager
    def step(self) -> Iterator[None]:
        """Holds the device for one step, in inference mode and in the number format of this runtime.

        Raises:
            Cancelled: the work was cancelled before this step.
        """
        raise_if_cancelled()
        with (
            self._lock,
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32),
        ):
            yield


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
        raise DeviceError(f"Unknown device {name!r} (available: {', '.join(names)})")
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
