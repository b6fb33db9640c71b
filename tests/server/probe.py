"""Loads the app in a process that already belongs to somebody else, and writes down what that does to it.

``python probe.py APP STUDIES WORKDIR`` leaves ``facts.json`` in WORKDIR.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import monailabel.interfaces.app  # noqa: F401  (what it does at import is not the app's doing)
import torch
from hydra.core.global_hydra import GlobalHydra
from monailabel.interfaces.utils.app import app_instance
from sam2.modeling.backbones.image_encoder import ImageEncoder

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.support import studies  # noqa: E402

CT = studies.phantom("ct")
LESION = CT.click("lesion")
K = LESION[2]
NRRD = {"result_extension": ".nrrd", "result_compress": False}

CONNECTIONS: list[str] = []
ENCODED: list[int] = []
LOADED: list[str] = []


def watch() -> None:
    """Counts encoded frames and loaded weights, and refuses and writes down every connection."""

    def refuse(name: str) -> Any:
        def call(*arguments: Any, **_: Any) -> Any:
            CONNECTIONS.append(f"{name} {arguments[-1] if arguments else ''}")
            raise OSError("this process has no network")

        return call

    socket.socket.connect = refuse("connect")  # type: ignore[method-assign]
    socket.socket.connect_ex = refuse("connect")  # type: ignore[method-assign]
    socket.getaddrinfo = refuse("look up")
    forward, load = ImageEncoder.forward, torch.load

    def count_forward(self: Any, sample: torch.Tensor) -> Any:
        ENCODED.append(len(sample))
        return forward(self, sample)

    def count_load(*arguments: Any, **options: Any) -> Any:
        LOADED.append(str(arguments[0]))
        return load(*arguments, **options)

    ImageEncoder.forward = count_forward
    torch.load = count_load


def somebody_else() -> None:
    """Settings of another user of the process, which must survive."""
    GlobalHydra.instance().clear()
    hydra.initialize(version_base=None, config_path=None, job_name="somebody_else")


def torch_state() -> dict[str, Any]:
    return {
        "autocast cpu": torch.is_autocast_enabled("cpu"),
        "autocast cuda": torch.is_autocast_enabled("cuda"),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "matmul": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn benchmark": torch.backends.cudnn.benchmark,
    }


def files(workdir: Path) -> set[str]:
    places = [workdir / "home", workdir / "tmp", REPOSITORY / "apps"]
    return {str(path) for place in places for path in place.rglob("*")}


class Before:
    """The process as it was; ``changes`` says what is different now."""

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._threads = set(threading.enumerate())
        self._files = files(workdir)
        self._torch = torch_state()
        self._hydra = GlobalHydra.instance().hydra

    def changes(self) -> dict[str, Any]:
        now = torch_state()
        return {
            "threads": sorted(thread.name for thread in set(threading.enumerate()) - self._threads),
            "files": sorted(files(self._workdir) ^ self._files),
            "torch": {name: value for name, value in now.items() if value != self._torch[name]},
            "hydra": GlobalHydra.instance().hydra is self._hydra,
            "connections": list(CONNECTIONS),
        }


def import_all(app_dir: Path) -> None:
    """Every module of the app, and its main."""
    sys.path.insert(0, str(app_dir))
    for path in sorted((app_dir / "lib").rglob("*.py")):
        if path.stem not in ("__init__", "__main__"):
            importlib.import_module(".".join(path.relative_to(app_dir).with_suffix("").parts))
    spec = importlib.util.spec_from_file_location("main_of_the_app", app_dir / "main.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


class App:
    """The app, asked as the server asks it."""

    def __init__(self, app_dir: Path, folder: Path) -> None:
        self._app = app_instance(str(app_dir), str(folder), {"labels": "lesion,organ"})

    def ask(self, model: str, image: str, **params: Any) -> str:
        """Digest of the answer's file."""
        answer = self._app.infer({"model": model, "image": image, **params})
        path = Path(answer["file"])
        content = path.read_bytes()
        path.unlink()
        return hashlib.sha256(content).hexdigest()


@contextmanager
def encoding(facts: dict[str, Any], name: str) -> Iterator[None]:
    before = sum(ENCODED)
    yield
    facts.setdefault("encoded", {})[name] = sum(ENCODED) - before


def clicks(app: App, facts: dict[str, Any]) -> None:
    i, j, _ = LESION
    with encoding(facts, "a click"):
        facts["cpu by default"] = app.ask("biosam2_point", "ct", foreground=[LESION], **NRRD)
    with encoding(facts, "a second click"):
        app.ask("biosam2_point", "ct", foreground=[LESION, [i + 3, j + 2, K]], **NRRD)
    with encoding(facts, "a box from another task"):
        app.ask("biosam2_box", "ct", roi=CT.box("lesion"), slice=K, zoom="off", **NRRD)
    with encoding(facts, "under another name"):
        app.ask("sam_2d", "ct_linked", foreground=[LESION], **NRRD)
    with encoding(facts, "a copy in another file type"):
        app.ask("biosam2_point", "ct_nrrd", foreground=[LESION], **NRRD)
    with encoding(facts, "a click on another slice"):
        app.ask("biosam2_point", "ct", foreground=[[i, j, K + 2]], **NRRD)
    with encoding(facts, "a propagation"):
        app.ask("biosam2_propagate", "ct", foreground=[LESION], **NRRD)
    with encoding(facts, "the propagation again"):
        app.ask("biosam2_propagate", "ct", foreground=[LESION], **NRRD)
    with encoding(facts, "a click on a slice of the propagation"):
        app.ask("biosam2_point", "ct", foreground=[CT.click("lesion", K - 2)], **NRRD)


def devices(app: App, facts: dict[str, Any]) -> None:
    facts["cpu in words"] = app.ask("biosam2_point", "ct", foreground=[LESION], device="cpu", **NRRD)
    try:
        app.ask("biosam2_point", "ct", foreground=[LESION], device="cuda:99", **NRRD)
        facts["refused device"] = ""
    except Exception as error:
        facts["refused device"] = str(error)


def threads(app: App, facts: dict[str, Any]) -> None:
    asked = [
        ("biosam2_propagate", "ct", {"foreground": [CT.click("organ")], **NRRD}),
        ("biosam2_propagate", "lung", {"foreground": [studies.phantom("lung").click("nodule")], **NRRD}),
        ("biosam2_point", "mr", {"foreground": [studies.phantom("mr").click("tumour")], **NRRD}),
        ("biosam2_point", "grey", {"foreground": [studies.phantom("grey").click("cell")[:2]]}),
    ]

    def ask(request: tuple[str, str, dict[str, Any]]) -> str:
        model, image, params = request
        return app.ask(model, image, **params)

    # Together first, so that nothing lies in a cache yet.
    with ThreadPoolExecutor(len(asked)) as pool:
        facts["together"] = list(pool.map(ask, asked))
    facts["alone"] = [ask(request) for request in asked]


def main(app_dir: Path, folder: Path, workdir: Path) -> None:
    facts: dict[str, Any] = {}
    somebody_else()
    watch()
    before = Before(workdir)
    import_all(app_dir)
    facts["after import"] = before.changes()
    app = App(app_dir, folder)
    facts["weights loaded by construction"] = len(LOADED)
    facts["after construction"] = before.changes()
    clicks(app, facts)
    devices(app, facts)
    facts["weights loaded"] = len(LOADED)
    threads(app, facts)
    facts["after requests"] = before.changes()
    (workdir / "facts.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
