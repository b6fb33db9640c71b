"""Runs a MONAI Label server in a separate process for a benchmark."""

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

from lib.engine.openvino_parts import is_chosen
from lib.settings import RuntimeName

APP = Path(__file__).resolve().parents[1] / "apps" / "biosam2"
HOST = "127.0.0.1"
_POLL_SECONDS = 0.25
_STOP_SECONDS = 10.0
_LOG_LINES_IN_ERROR = 25
_BUNDLED = ("registry.yaml", "biosam2_mini.pt", "biosam2_mini.yaml")


class ServerError(RuntimeError):
    """The server did not start, or ended early."""


@dataclass(frozen=True)
class RunningServer:
    """A running server.

    Attributes:
        name: Name in errors and tables.
        url: ``http://host:port`` without a trailing slash.
        pid: Id of the server's Python process.
        log: File with the process's output.
    """

    name: str
    url: str
    pid: int
    log: Path

    def peak_memory_mb(self) -> float:
        """Peak resident memory in MB (10**6 bytes); NaN without /proc."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return float("nan")
        return parse_peak_memory_mb(status)

    def wait_for_openvino(self, runtime: RuntimeName, seconds: float = 1800.0) -> None:
        """Waits until OpenVINO computes, where the runtime means it: the conversion takes the machine.

        Raises:
            ServerError: OpenVINO is not used; with the server's last log lines.
        """
        give_up = time.monotonic() + seconds
        while is_chosen(runtime, "cpu"):
            log = self.log.read_text(encoding="utf-8", errors="replace")
            if "OpenVINO computes" in log:
                return
            if "OpenVINO is not used" in log or time.monotonic() > give_up:
                raise ServerError(last_lines(self.log))
            time.sleep(_POLL_SECONDS)


def parse_peak_memory_mb(status: str) -> float:
    """VmHWM of a ``/proc/<pid>/status`` text in MB (10**6 bytes); NaN without that line."""
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, flags=re.MULTILINE)
    return int(match.group(1)) * 1024 / 1e6 if match else float("nan")


def copy_bundled(app: Path, folder: Path) -> Path:
    """Creates a model folder with the app's registry and bundled weights only."""
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
    """This process's environment, with its interpreter first on PATH and all caches below ``cache``."""
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
    """Starts a server, waits until ``/info/`` answers, and stops its whole process group at the end.

    Args:
        app: Folder of a MONAI Label app.
        studies: Folder of images; the server writes its own files into it.
        port: Free TCP port of this machine.
        conf: The app's ``--conf`` options.
        name: Name of the server in errors and tables.
        environment: Variables in addition to this process's environment.
        start_seconds: Time limit of the start.

    Raises:
        ServerError: the port is taken, or the process ended or did not answer in time; the message then has
            its last log lines.
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
    """Raises if another process listens on the port: it would answer instead of the new server."""
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
    """Ends the process group: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number) if hasattr(os, "killpg") else process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
            return
