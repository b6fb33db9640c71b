"""Starts real servers quickly, for tests that kill many: ``python -m tests.faults.launcher`` forks them.

A process imports the large libraries once. Each server is a fork of it that runs MONAI Label's own ``main``,
so it starts in a second or two instead of ten. Background processes of the server start as always.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import psutil
import requests

from sample_study.orthanc import free_port
from tests.support.server import APP, REPOSITORY, environment

# Not MONAI Label's own modules, which read the environment when they are imported.
LIBRARIES = (
    "torch",
    "torchvision",
    "monai",
    "nibabel",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "sam2",
    "skimage",
    "scipy.ndimage",
    "matplotlib",
    "fastapi",
    "uvicorn",
    "dicomweb_client",
    "openslide",
)
START_LIMIT_S = 240


def serve_requests() -> None:
    """Forks a server for each line on stdin, JSON with arguments, environment and folder; writes its id."""
    for name in LIBRARIES:
        importlib.import_module(name)
    _write("ready")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # killed servers leave no zombies
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become_server(asked)
        _write(str(child))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _become_server(asked: Mapping[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(asked["folder"])
    log = os.open("server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["monailabel", *asked["arguments"]]
    try:
        importlib.import_module("monailabel.main").Main().run()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


class Launcher:
    """The process that forks servers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.launcher"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": f"{APP}{os.pathsep}{REPOSITORY}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._read() != "ready":
            raise RuntimeError("the launcher did not start")

    def fork(self, arguments: list[str], folder: Path) -> int:
        """Starts a server in a folder; returns its process id."""
        asked = {"arguments": arguments, "environment": environment(folder), "folder": str(folder)}
        print(json.dumps(asked), file=self._pipe, flush=True)
        return int(self._read())

    def stop(self) -> None:
        """Ends the launcher; servers go on."""
        self._process.communicate()

    @property
    def _pipe(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class KillableServer:
    """A server that can be killed and started again on the same folders.

    Args:
        launcher: Process that forks it.
        folder: Folder with ``studies`` and ``model`` in it; also for its log and temporary files.
        conf: Options of ``--conf``.
    """

    def __init__(self, launcher: Launcher, folder: Path, conf: Mapping[str, str]) -> None:
        self.folder, self.studies, self.model_dir = folder, folder / "studies", folder / "model"
        self._launcher = launcher
        self._conf = {"model_dir": str(self.model_dir), "threads": "1", "runtime": "torch", **conf}
        self._process: psutil.Process | None = None
        self.url = ""

    def start(self) -> KillableServer:
        """Starts the server and waits until it answers.

        Raises:
            RuntimeError: It ended, or does not answer.
        """
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["start_server", "--app", str(APP), "--studies", str(self.studies)]
        arguments += ["--host", "127.0.0.1", "--port", str(port)]
        for name, value in self._conf.items():
            arguments += ["--conf", name, value]
        self._process = psutil.Process(self._launcher.fork(arguments, self.folder))
        give_up = time.monotonic() + START_LIMIT_S
        while time.monotonic() < give_up and self.alive:
            try:
                if requests.get(f"{self.url}/info/", timeout=START_LIMIT_S).ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.1)
        raise RuntimeError(f"the server does not start:\n{self.log[-4000:]}")

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.is_running()

    @property
    def log(self) -> str:
        """Everything that all its servers have written."""
        return (self.folder / "server.log").read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """Its background processes."""
        assert self._process is not None
        return list(self._process.children(recursive=True))

    def kill(self) -> None:
        """Ends the server at once (SIGKILL), and nothing else."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)


if __name__ == "__main__":
    serve_requests()
