"""A MONAI Label server as a process of its own, for as long as a benchmark needs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

APP = Path(__file__).resolve().parents[1] / "apps" / "biosam2"
HOST = "127.0.0.1"
_POLL_SECONDS = 0.25
_STOP_SECONDS = 10.0
_LOG_LINES_IN_ERROR = 25
_BUNDLED = ("registry.yaml", "biosam2_mini.pt", "biosam2_mini.yaml")


class ServerError(RuntimeError):
    """The server did not start, or ended before it was stopped."""


@dataclass(frozen=True)
class RunningServer:
    """A server that answers.

    Attributes:
        name: what the benchmark calls it.
        url: ``http://host:port`` without a trailing slash.
        pid: process id of the Python process that serves.
        log: file with everything the process wrote.
    """

    name: str
    url: str
    pid: int
    log: Path

    def peak_memory_mb(self) -> float:
        """Largest resident set so far in MB (10**6 bytes), NaN where /proc does not exist."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return float("nan")
        return parse_peak_memory_mb(status)


def parse_peak_memory_mb(status: str) -> float:
    """VmHWM of a ``/proc/<pid>/status`` text in MB (10**6 bytes), NaN when the line is missing."""
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, flags=re.MULTILINE)
    return int(match.group(1)) * 1024 / 1e6 if match else float("nan")


def copy_bundled(app: Path, folder: Path) -> Path:
    """A new model folder with the app's registry and bundled weights alone: nothing fine-tuned, no scores."""
    folder.mkdir(parents=True)
    for name in _BUNDLED:
        shutil.copyfile(app / "model" / name, folder / name)
    return folder


def start_command(app: Path, studies: Path, port: int, conf: Mapping[str, str]) -> list[str]:
    """The command line of ``monailabel start_server`` on this interpreter."""
    command = [sys.executable, "-m", "monailabel.main", "start_server"]
    command += ["--app", str(app), "--studies", str(studies), "--host", HOST, "--port", str(port)]
    for name, value in conf.items():
        command += ["--conf", name, value]
    return command


def server_environment(cache: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """This environment with the interpreter's folder first on PATH and every cache below ``cache``."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment.setdefault("PYTHONPATH", "")
    environment["MONAI_LABEL_DATASTORE_CACHE_PATH"] = str(cache)
    environment["MONAI_LABEL_AUTO_UPDATE_SCORING"] = "false"
    environment["MPLCONFIGDIR"] = str(cache / "matplotlib")
    environment.update(extra)
    return environment


@contextmanager
def running_server(
    app: Path,
    studies: Path,
    port: int,
    conf: Mapping[str, str] | None = None,
    *,
    name: str = "server",
    environment: Mapping[str, str] | None = None,
    start_seconds: float = 240.0,
) -> Iterator[RunningServer]:
    """Start a server, wait until ``/info/`` answers, and stop its whole process group at the end.

    Args:
        app: folder of a MONAI Label app.
        studies: folder of images; the server writes its own files into it.
        port: a free TCP port of this machine.
        conf: the app's ``--conf`` options.
        name: what to call the server in errors and tables.
        environment: variables on top of this process's own.
        start_seconds: how long the start may take.

    Raises:
        ServerError: something listens on the port already, or the process ended or did not answer in time;
            the message then has its last log lines.
    """
    _refuse_taken_port(port)
    with tempfile.TemporaryDirectory(prefix="biosam2_bench_", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                start_command(app, studies, port, conf or {}),
                env=server_environment(Path(folder), environment or {}),
                cwd=folder,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = RunningServer(name, f"http://{HOST}:{port}", process.pid, log)
        try:
            _wait_until_it_answers(server, process, start_seconds)
            yield server
        finally:
            _stop(process)


def _refuse_taken_port(port: int) -> None:
    """What listens there already would answer in the place of the new server."""
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise ServerError(f"port {port} is taken; stop what listens there or choose another --port")


def _wait_until_it_answers(server: RunningServer, process: subprocess.Popen, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(
                f"{server.name} ended with code {process.returncode}:\n{last_lines(server.log)}"
            )
        with suppress(requests.RequestException):
            if requests.get(f"{server.url}/info/", timeout=30).status_code == 200:
                return
        time.sleep(_POLL_SECONDS)
    raise ServerError(f"{server.name} did not answer within {seconds:.0f} s:\n{last_lines(server.log)}")


def last_lines(log: Path, count: int = _LOG_LINES_IN_ERROR) -> str:
    """The last ``count`` lines of a text file."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def _stop(process: subprocess.Popen) -> None:
    """End the process group: politely, then by force."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number) if hasattr(os, "killpg") else process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
            return
