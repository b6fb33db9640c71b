"""A real server in a process group of its own, as ``monailabel start_server`` runs it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import requests

from sample_study.orthanc import free_port
from tests.support.launcher import APP, REPOSITORY, fork_server

__all__ = ["APP", "REPOSITORY", "Server", "copy_model_folder", "environment"]

# Importing torch and MONAI Label takes 11 to 17 s on two busy cores; a cold disk can take many times that.
START_LIMIT_S = 240
STOP_LIMIT_S = 20
LOG_TAIL = 6000


def environment(workdir: Path) -> dict[str, str]:
    """This process's environment, with home, temporary files and sessions inside ``workdir``."""
    temporary = workdir / "tmp"
    home = workdir / "home"
    for folder in (temporary, home):
        folder.mkdir(parents=True, exist_ok=True)
    bin_dir = str(Path(sys.executable).parent)
    changes = {
        "PATH": bin_dir + os.pathsep + os.environ.get("PATH", ""),
        "TMPDIR": str(temporary),
        "HOME": str(home),
        "MONAI_LABEL_SESSION_PATH": str(workdir / "sessions"),
        "PYTHONUNBUFFERED": "1",
    }
    # What is scored in the background takes a core from the tests of everything else, and writes the record.
    return {"MONAI_LABEL_AUTO_UPDATE_SCORING": "false", **os.environ, **changes}


def copy_model_folder(folder: Path) -> Path:
    """A model folder of its own, with the registry and the bundled weights and no others."""
    folder.mkdir(parents=True)
    for name in ("registry.yaml", "biosam2_mini.yaml", "biosam2_mini.pt"):
        shutil.copy(APP / "model" / name, folder / name)
    return folder


class Server:
    """Starts on ``start``, is gone after ``stop``; its output is in ``log``.

    Attributes:
        forks_workers: Whether trainings and scorings are forks (``tests.support.workers``), or start as MONAI
            Label starts them, ten seconds later.

    Args:
        studies: a folder, or the address of a DICOMweb store.
        workdir: for its home, its temporary files and its log.
        conf: the ``--conf`` options.
        tls: key and certificate; it speaks HTTPS where they are given.
        env: further environment variables.
        arguments: further arguments of ``monailabel start_server``.
    """

    forks_workers = False

    def __init__(
        self,
        studies: Path | str,
        workdir: Path,
        conf: Mapping[str, str],
        tls: tuple[Path, Path] | None = None,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.arguments = arguments
        self.studies = studies
        self.workdir = workdir
        # Conversions and prefetching take the cores from other tests; some tests ask for them.
        self.conf = {"runtime": "torch", "prefetch": "0", **conf}
        self.port = free_port()
        self.tls = tls
        self.env = dict(env or {})
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._process: psutil.Process | None = None

    @property
    def temporary(self) -> Path:
        """The folder for the server's temporary files."""
        return self.workdir / "tmp"

    @property
    def log(self) -> str:
        """All that the server has written so far."""
        path = self.workdir / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Server:
        """Starts the process and waits until it answers.

        Raises:
            RuntimeError: the process ended, or did not answer in time; with the end of its log.
        """
        arguments = ["start_server", "--app", str(APP), "--studies", str(self.studies)]
        arguments += ["--host", "127.0.0.1", "--port", str(self.port)]
        for name, value in self.conf.items():
            arguments += ["--conf", name, value]
        arguments += self.arguments
        if self.tls is not None:
            arguments += ["--ssl_keyfile", str(self.tls[0]), "--ssl_certfile", str(self.tls[1])]
        env = {**environment(self.workdir), **self.env}
        self._process = psutil.Process(fork_server(arguments, env, self.workdir, self.forks_workers))
        self._wait()
        return self

    def _wait(self) -> None:
        give_up = time.monotonic() + START_LIMIT_S
        while time.monotonic() < give_up:
            if not self.alive:
                self.stop()
                raise RuntimeError(f"the server ended:\n{self.log[-LOG_TAIL:]}")
            try:
                trusted = str(self.tls[1]) if self.tls else True
                if requests.get(f"{self.url}/health", timeout=START_LIMIT_S, verify=trusted).ok:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"the server did not answer in {START_LIMIT_S} s:\n{self.log[-LOG_TAIL:]}")

    @property
    def model_dir(self) -> Path:
        """Folder of the registry and the versions."""
        return Path(self.conf["model_dir"])

    @property
    def pid(self) -> int:
        """Process id of the server, which runs."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[psutil.Process]:
        """Background processes of the server."""
        return list(psutil.Process(self.pid).children(recursive=True))

    def kill(self) -> None:
        """Ends the server at once (SIGKILL), and nothing else."""
        process = psutil.Process(self.pid)
        process.kill()
        process.wait(STOP_LIMIT_S)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        process = self._process
        with contextlib.suppress(psutil.NoSuchProcess):
            return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    def stop(self) -> None:
        """Ends the process and all that it started."""
        if self._process is not None:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(self._process.pid, sign)
                    self._process.wait(STOP_LIMIT_S)
                except (ProcessLookupError, psutil.TimeoutExpired):
                    continue
