"""Where, when and in which number format a network runs: devices, locks, priority, cancellation."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

import torch
from filelock import FileLock, Timeout

from lib.engine.registry import DeviceType
from lib.errors import Cancelled, DeviceError
from lib.files import is_locked
from lib.settings import Precision

logger = logging.getLogger(__name__)


class Cancellation:
    """Tells one piece of work to stop. Safe to use from several threads.

    Attributes:
        progress: Share of the work that is done, 0 to 1.
    """

    def __init__(self) -> None:
        self._requested = False
        self.progress = 0.0

    def cancel(self) -> None:
        """Makes the next ``raise_if_cancelled`` of the work raise. Takes no lock: a signal may call it."""
        self._requested = True

    @property
    def is_requested(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._requested

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Makes this object the one that ``raise_if_cancelled`` asks, in the calling thread."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def is_cancelled() -> bool:
    """Whether the calling thread's work was told to stop."""
    current = _current.get()
    return current is not None and current.is_requested


def raise_if_cancelled() -> None:
    """Called between slices and tiles. Without an applied ``Cancellation`` it does nothing.

    Raises:
        Cancelled: ``cancel`` was called.
    """
    if is_cancelled():
        raise Cancelled("the client closed the connection, or the run was stopped")


def report_progress(share: float) -> None:
    """Tells the share of the calling thread's work that is done, 0 to 1, and stops the work if it is to stop.

    Raises:
        Cancelled: ``cancel`` was called.
    """
    raise_if_cancelled()
    if (current := _current.get()) is not None:
        current.progress = share


class FifoLock:
    """A lock that goes to the thread that has waited longest.

    Python's own lock has no order: a thread that releases it and asks again at once mostly gets it back,
    while others wait.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._held = False

    def __enter__(self) -> None:
        with self._changing:
            if not self._held:
                self._held = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changing:
            if self._waiting:
                # Handed over, not let go: nobody can come between.
                self._waiting.popleft().set()
            else:
                self._held = False


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


LOCK_FILE = "interactive"
_POLL_S = 0.05
# Each of several servers on one folder holds a lock file of its own. Another one is taken as well where
# background work holds the first for microseconds, to see that nobody else does.
_FILES = 32


class InteractivePriority:
    """Lock files: a server holds one while it answers requests, and background work waits for all.

    The operating system releases the lock of a process that was killed. Best effort: in a folder that cannot
    be written background work does not pause, and requests still succeed.

    Args:
        model_dir: Folder that the server and its background processes share.
    """

    def __init__(self, model_dir: Path):
        self._folder = model_dir
        # Requests are answered in threads: the first takes the lock, the last releases it.
        self._lock: FileLock | None = None
        self._counting = threading.Lock()
        self._requests = 0

    @contextlib.contextmanager
    def interactive(self) -> Iterator[None]:
        """Pauses background work until it ends."""
        with self._counting:
            self._requests += 1
            if self._requests == 1:
                self._acquire()
        try:
            yield
        finally:
            with self._counting:
                self._requests -= 1
                if self._requests == 0 and self._lock is not None:
                    self._lock.release()
                    self._lock = None

    @property
    def is_busy(self) -> bool:
        """Whether an interactive request runs in this process."""
        return self._requests > 0

    def give_way(self) -> None:
        """Returns once no interactive request runs; background work calls it between two steps."""
        while self.is_busy or any(is_locked(path) for path in self._folder.glob(f"{LOCK_FILE}*")):
            time.sleep(_POLL_S)

    def _acquire(self) -> None:
        if not self._folder.is_dir():
            return
        for number in range(_FILES):
            lock = FileLock(self._folder / f"{LOCK_FILE}{number or ''}", thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            except (OSError, NotImplementedError) as error:
                logger.debug("Background work does not pause: %s", error)
                return
            self._lock = lock
            return


# glibc's options and their values. By itself it raises the second up to 32 MB, and keeps smaller free blocks.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 64 << 20
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 1 << 20


def return_large_blocks() -> None:
    """Makes glibc give a block of 1 MiB or more back to the system when it is freed. Elsewhere nothing.

    Call it before memory is taken. With SAM 2.1 tiny at 1024 px free blocks between those in use took 700 MB
    after a propagation.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def release_free_memory() -> None:
    """Gives memory that is free back to the system; glibc keeps what threads have freed. Elsewhere nothing.

    Measured on a server with the bundled weights: 56 to 67 MB after each 200 clicks on 4 volumes.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def release_free_memory_regularly(priority: InteractivePriority, every_s: float) -> threading.Thread:
    """Does so in a thread of its own, at moments without a request where there are some.

    Args:
        priority: Tells when no request runs.
        every_s: Seconds between two times, and the longest wait for such a moment.
    """

    def work() -> None:
        while True:
            time.sleep(every_s)
            give_up = time.monotonic() + every_s
            while priority.is_busy and time.monotonic() < give_up:
                time.sleep(_POLL_S)
            release_free_memory()

    thread = threading.Thread(target=work, name="free-memory", daemon=True)
    thread.start()
    return thread
