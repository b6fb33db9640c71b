"""Starts real servers quickly: ``python -m tests.support.launcher`` forks them.

A process imports the large libraries once. Each server is a fork of it that runs MONAI Label's own ``main``,
so it starts in a second or two instead of ten. Background processes of the server start as always.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "apps" / "biosam2"
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


# Servers that were not forked, whose ends are noticed here.
_STARTED: list[subprocess.Popen[bytes]] = []


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
    log = os.open("server.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None  # asked for by a library that was imported in another environment
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = ["monailabel", *asked["arguments"]]
    try:
        importlib.import_module("monailabel.main").Main().run()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


@cache
def _launcher() -> subprocess.Popen[str]:
    """The process that forks servers; it ends with this one."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.support.launcher"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{APP}{os.pathsep}{REPOSITORY}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    if _read(process) != "ready":
        raise RuntimeError("the launcher did not start")
    return process


def fork_server(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
    """Runs ``monailabel`` in a folder, with its output in ``server.log`` there; returns the process id."""
    if sys.platform != "linux":  # elsewhere system libraries do not survive a fork
        with (folder / "server.log").open("wb") as log:
            command = [sys.executable, "-m", "monailabel.main", *arguments]
            server = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        _STARTED.append(server)
        return server.pid
    asked = {"arguments": arguments, "environment": dict(environment), "folder": str(folder)}
    process = _launcher()
    print(json.dumps(asked), file=process.stdin, flush=True)
    return int(_read(process))


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


if __name__ == "__main__":
    serve_requests()
