"""Imports run one way, heavy libraries stay in their place, and an import does nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "apps" / "biosam2"
LIB = APP / "lib"

# Lowest first: a part imports from itself and from parts before it.
ORDER = (
    "errors",
    "files",
    "child_process",
    "palette",
    "settings",
    "metrics",
    "transforms",
    "images",
    "labels",
    "prompts",
    "engine",
    "datastores",
    "reports",
    "infers",
    "pathology",
    "trainers",
    "scoring",
    "activelearning",
    "evaluation",
    "dashboard",
    "batch",
    "server",
    "main",
)
TASKS = (
    "infers",
    "pathology",
    "trainers",
    "scoring",
    "activelearning",
    "evaluation",
    "dashboard",
    "batch",
    "datastores",
)
# Libraries that only some parts may import.
CONFINED = {
    "monailabel": {"main", "server", "datastores", *TASKS},
    "fastapi": {"server"},
    "sam2": {"engine"},
    "hydra": {"engine"},
    "omegaconf": {"engine"},
    "nibabel": {"images", "labels"},
    "SimpleITK": {"images", "labels"},
    "pydicom": {"images", "labels", "datastores"},
    "dicomweb_client": {"datastores"},
    "highdicom": {"images", "labels"},
    "openslide": {"pathology"},
    "tifffile": {"images", "pathology"},
    "matplotlib": {"reports"},
    "ray": {"batch"},
}
BELOW_ENGINE = ORDER[: ORDER.index("engine")]
ABOVE_ENGINE = ("engine", "reports")
IMPORT_LIMIT_S = 280


def _part(path: Path) -> str:
    """The part of the house that a file belongs to: the folder in lib, or the module's own name."""
    if path == APP / "main.py":
        return "main"
    first = path.relative_to(LIB).parts[0]
    return first.removesuffix(".py")


def _files() -> list[Path]:
    return [path for path in [APP / "main.py", *sorted(LIB.rglob("*.py"))] if path != LIB / "__init__.py"]


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is relative; write `from lib.` in full"
            assert node.module is not None
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def test_every_file_belongs_to_a_known_part() -> None:
    parts = {_part(path) for path in _files()}
    assert parts <= set(ORDER), f"no part of the app, see ORDER: {sorted(parts - set(ORDER))}"
    assert parts >= {"main", "server", "infers", "engine", "prompts", "transforms", "errors"}


def test_imports_run_one_way() -> None:
    against = []
    for path in _files():
        part, name = _part(path), path.relative_to(APP).as_posix().removeprefix("lib/")
        for line, imported in _imported(path):
            if imported.split(".")[0] != "lib":
                continue
            target = imported.split(".")[1]
            if ORDER.index(target) > ORDER.index(part):
                against.append(f"{name}:{line}: {part} must not import {imported}")
    assert against == []


def test_libraries_stay_in_their_part() -> None:
    misplaced = []
    for path in _files():
        for line, imported in _imported(path):
            parts = CONFINED.get(imported.split(".")[0])
            if parts is not None and _part(path) not in parts:
                misplaced.append(f"{path.relative_to(APP)}:{line}: {_part(path)} must not import {imported}")
    assert misplaced == []


_PROBE = """
import importlib, json, os, socket, sys, tempfile, threading
tempfile.gettempdir()  # tries folders once, with a file in each
written, calls = [], []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+"):
        if str(arguments[0]) != os.devnull:
            written.append(str(arguments[0]))
    elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "tempfile.mkstemp"):
        written.append(f"{event} {arguments[0]}")
    elif event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
        calls.append(event)
baseline = json.loads(sys.argv[2])
for name in baseline:
    importlib.import_module(name)
threads = set(threading.enumerate())
environ = dict(os.environ)
sys.addaudithook(hook)
sys.path.insert(0, sys.argv[1])
for name in json.loads(sys.argv[3]):
    importlib.import_module(name)
print(json.dumps({
    "written": written,
    "calls": calls,
    "threads": [thread.name for thread in set(threading.enumerate()) - threads],
    "environ": sorted(set(os.environ.items()) ^ set(environ.items())),
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
}))
"""


def _probe(modules: list[str], baseline: list[str]) -> dict[str, list[str]]:
    """What importing ``modules`` does in a fresh process in which ``baseline`` is imported already."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", _PROBE, str(APP), json.dumps(baseline), json.dumps(modules)],
        capture_output=True,
        text=True,
        timeout=IMPORT_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return result


def _modules(*parts: str) -> list[str]:
    names = []
    for path in _files():
        if _part(path) in parts and path.name not in ("__main__.py", "main.py"):
            dotted = path.relative_to(APP).with_suffix("").parts
            names.append(".".join(dotted[:-1] if dotted[-1] == "__init__" else dotted))
    return names


@pytest.mark.parametrize(
    ("parts", "baseline", "unneeded"),
    [
        (BELOW_ENGINE, ["numpy", "scipy.ndimage", "torch"], {"sam2", "hydra", "monailabel", "monai"}),
        (ABOVE_ENGINE + TASKS, ["torch", "sam2", "torch.utils.tensorboard", "monailabel.app"], set()),
    ],
    ids=["below the engine", "engine and tasks"],
)
def test_an_import_does_nothing_else(parts: tuple[str, ...], baseline: list[str], unneeded: set[str]) -> None:
    # Other libraries do what they do when they are imported first, before anybody looks.
    libraries = ["nibabel", "SimpleITK", "pydicom", "PIL.Image", "highdicom", "nrrd", "skimage.draw"]
    libraries += ["scipy.spatial", "scipy.sparse.csgraph", "matplotlib.backends.backend_agg"]
    first = [*baseline, *libraries]
    seen = _probe(_modules(*parts), first)
    assert seen["written"] == []
    assert seen["calls"] == []
    assert seen["threads"] == []
    assert seen["environ"] == []
    assert not unneeded & set(seen["modules"])


def test_settings_and_errors_need_nothing() -> None:
    seen = _probe(["lib.errors", "lib.settings"], [])
    assert not {"torch", "numpy", "sam2", "monailabel"} & set(seen["modules"])
