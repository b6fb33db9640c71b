"""Starts real servers and scripts quickly: ``python -m tests.support.launcher`` forks them.

A process imports the large libraries once. Each server is a fork of it that runs MONAI Label's own ``main``,
so it starts in a second or two instead of ten; so are the server's trainings and scorings where a test asks
for it (``tests.support.workers``).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from tests.support import workers

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "apps" / "biosam2"
SCRIPT_LIMIT_S = 280
# MONAI Label's watcher of a datastore would keep the process of a script alive.
_RUN = "import os, runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__'); "
_RUN += "sys.stdout.flush(); os._exit(0)"
# Not MONAI Label's own modules, which read the environment when they are imported.
LIBRARIES = (
    "torch",
    "torch.utils.tensorboard",
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
    "av",
    "shapely",
    "cryptography.x509",
    "pydantic_settings",
    "prometheus_client",
    "jinja2",
    "passlib.context",
    "watchdog.observers",
    "pydicom_seg",
    "girder_client",
    "requests_toolbelt",
    "surface_distance",
)


# Servers that were not forked, whose ends are noticed here.
_STARTED: list[subprocess.Popen[bytes]] = []


def serve_requests() -> None:
    """Forks a process for each line on stdin, JSON with what it runs; writes its id."""
    for name in LIBRARIES:
        importlib.import_module(name)
    _write("ready")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # killed servers leave no zombies
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked)
        _write(str(child))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _become(asked: Mapping[str, Any]) -> None:
    """Runs a server, or a script, which writes its exit code into ``exit`` beside its log."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(asked["folder"])
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    tempfile.tempdir = None  # asked for by a library that was imported in another environment
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = asked["arguments"]

    def run() -> None:
        if asked["forks_workers"]:
            workers.fork_for_monailabel()
        if asked["script"]:
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            importlib.import_module("monailabel.main").Main().run()

    def report(code: int) -> None:
        if asked["script"]:
            Path("exit").write_text(str(code))

    workers.end_with(run, report)


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


def fork_server(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, forks_workers: bool = False
) -> int:
    """Runs ``monailabel`` in a folder, with its output in ``server.log`` there; returns the process id.

    With ``forks_workers`` its trainings and scorings are forks, too, which import no library again.
    """
    if sys.platform != "linux":  # elsewhere system libraries do not survive a fork
        with (folder / "server.log").open("wb") as log:
            command = [sys.executable, "-m", "monailabel.main", *arguments]
            server = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        _STARTED.append(server)
        return server.pid
    return _fork(["monailabel", *arguments], environment, folder, "server.log", forks_workers=forks_workers)


def run_script(
    script: Path, arguments: Sequence[Path | str], environment: Mapping[str, str], folder: Path
) -> str:
    """Runs a Python script in a folder of its own, as ``__main__``; returns its output.

    Raises:
        RuntimeError: The script failed; with the end of its output.
    """
    command = [str(script), *map(str, arguments)]
    if sys.platform != "linux":
        done = subprocess.run(
            [sys.executable, "-c", _RUN, *command],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SCRIPT_LIMIT_S,
            check=False,
        )
        code, output = done.returncode, done.stdout
    else:
        process = _fork(command, environment, folder, "script.log", is_script=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(process).wait(SCRIPT_LIMIT_S)
        code, output = int((folder / "exit").read_text()), (folder / "script.log").read_text()
    if code:
        raise RuntimeError(f"{script.name} failed:\n{output[-4000:]}")
    return output


def _fork(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    log: str,
    is_script: bool = False,
    forks_workers: bool = False,
) -> int:
    asked = {
        "arguments": arguments,
        "environment": dict(environment),
        "folder": str(folder),
        "log": log,
        "script": is_script,
        "forks_workers": forks_workers,
    }
    process = _launcher()
    print(json.dumps(asked), file=process.stdin, flush=True)
    return int(_read(process))


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


if __name__ == "__main__":
    serve_requests()
