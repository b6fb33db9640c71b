"""Forks MONAI Label's background processes, trainings and scorings, from a process with the libraries loaded.

MONAI Label starts each with ``subprocess.Popen``, and the import of torch and MONAI takes ten seconds. Here a
child of the server, forked before the server has threads, forks them: they run the same module with the same
arguments and environment, are descendants of the server, and can be killed.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import IO, Any, NoReturn

_MODULE = "monailabel.interfaces.utils.app"
# Of a request: arguments and environment.
_LONGEST = 1 << 20


def fork_for_monailabel() -> None:
    """Lets MONAI Label's queues in this process start their work as forks. Call it before threads start."""
    link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        link.close()
        _serve(other)
    other.close()
    lock = threading.Lock()

    def start(command: Sequence[str], env: Mapping[str, str], **_: Any) -> ForkedWorker:
        if list(command[1:3]) != ["-m", _MODULE]:
            raise ValueError(f"not the command of a worker: {command}")
        output, written = os.pipe()
        code, ended = os.pipe()
        with lock:
            socket.send_fds(link, [json.dumps([list(command[3:]), dict(env)]).encode()], [written, ended])
            pid = int(link.recv(_LONGEST))
        os.close(written)
        os.close(ended)
        return ForkedWorker(pid, os.fdopen(output, "r"), code)

    queues = importlib.import_module("monailabel.utils.async_tasks.utils")
    queues.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
        Popen=start, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT
    )


class ForkedWorker:
    """What MONAI Label uses of ``subprocess.Popen``."""

    def __init__(self, pid: int, stdout: IO[str], code: int) -> None:
        self.pid, self.stdout = pid, stdout
        self.returncode: int | None = None
        self._code = code
        os.set_blocking(code, False)
        self._written = b""

    def poll(self) -> int | None:
        """The exit code, once the process has ended."""
        while self.returncode is None:
            try:
                more = os.read(self._code, 16)
            except BlockingIOError:
                return None
            self._written += more
            if not more:  # a killed process leaves no code
                self.returncode = int(self._written or -signal.SIGKILL)
                os.close(self._code)
        return self.returncode

    def kill(self) -> None:
        """Ends the process at once."""
        os.kill(self.pid, signal.SIGKILL)


def _serve(link: socket.socket) -> None:
    """Forks a worker for each request until the server has gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        content, (output, ended) = _receive(link)
        pid = os.fork()
        if pid == 0:
            link.close()
            _work(json.loads(content), output, ended)
        os.close(output)
        os.close(ended)
        link.send(str(pid).encode())


def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    content, files, *_ = socket.recv_fds(link, _LONGEST, 2)
    if not content:
        os._exit(0)
    return content, files


def _work(asked: tuple[list[str], dict[str, str]], output: int, ended: int) -> None:
    """Runs MONAI Label's module as ``python -m`` does, and ends the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target in (1, 2):
        os.dup2(output, target)
    os.close(output)
    arguments, environment = asked
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [_MODULE, *arguments]
    end_with(
        lambda: runpy.run_module(_MODULE, run_name="__main__", alter_sys=True),
        lambda code: os.write(ended, str(code).encode()),
    )


def end_with(run: Callable[[], object], report: Callable[[int], object]) -> NoReturn:
    """Runs a function in a forked process, reports the exit code, and ends the process."""
    code = 1
    try:
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        report(code)
        os._exit(code)
