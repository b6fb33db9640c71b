"""Memory of a server over many volumes and clicks: flat within the configured caches (``make bench-memory``).

Volumes are opened one after the other and clicked on, with caches that a few of them fill. From then on
memory may not grow: the report compares the last fifth of the run with the second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.client import VIEWER_OPTIONS, Viewer
from benchmarks.items import ROOT
from benchmarks.machine import machine
from benchmarks.publish import write_report
from benchmarks.server import APP, copy_bundled, running_server
from benchmarks.tables import number
from benchmarks.volumes import write_volumes
from lib.evaluation.results import markdown_table

SHAPE = (128, 128, 16)
CACHES_MB = {"image_cache_mb": 16, "embedding_cache_mb": 16}
# Memory beside the caches: what the server, the network and the allocator may take more than at the start.
ALLOWED_MB = 300


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_growth", description=__doc__)
    parser.add_argument("--volumes", type=int, default=50, help="different volumes, each opened once")
    parser.add_argument("--clicks", type=int, default=5000, help="clicks in all")
    parser.add_argument("--runtime", default="auto", choices=["auto", "torch", "openvino"])
    parser.add_argument("--port", type=int, default=8150)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    return parser.parse_args(argv)


def measure(viewer: Viewer, process: psutil.Process, volumes: Sequence[str], clicks: int) -> list[float]:
    """Resident memory in MB after each volume, the first number before all of them."""
    resident = [process.memory_info().rss / 1e6]
    i, j, k = SHAPE
    for name in volumes:
        for turn in range(clicks // len(volumes)):
            point = [i // 4 + turn % (i // 2), j // 2 + turn // (i // 2), turn % k]
            viewer.infer("biosam2_point", name, {"foreground": [point], **VIEWER_OPTIONS})
        resident.append(process.memory_info().rss / 1e6)
    return resident


def growth(resident: Sequence[float]) -> float:
    """Growth in MB from the second fifth of the volumes, when the caches are full, to the last."""
    fifth = max(1, len(resident) // 5)
    return statistics.median(resident[-fifth:]) - statistics.median(resident[fifth : 2 * fifth])


def report(resident: Sequence[float], clicks: int, facts: str) -> str:
    """The table with an explanation, as Markdown."""
    limit = ALLOWED_MB + sum(CACHES_MB.values())
    taken = max(resident) - resident[0]
    verdict = "kept" if taken <= limit else "missed"
    header = [
        "before, MB",
        "most, MB",
        "after, MB",
        "most - before",
        "allowed",
        "",
        "growth with full caches, MB",
    ]
    row = [number(value, 0) for value in (resident[0], max(resident), resident[-1], taken, limit)]
    about = f"{len(resident) - 1} volumes, {clicks} clicks, caches {CACHES_MB}. {facts}."
    return "\n\n".join([markdown_table(header, [[*row, verdict, number(growth(resident), 1)]]), about]) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Measures, prints the report and writes it."""
    options = arguments(argv)
    conf = {name: str(value) for name, value in CACHES_MB.items()} | {"runtime": options.runtime}
    with tempfile.TemporaryDirectory(prefix="biosam2_memory_", ignore_cleanup_errors=True) as folder:
        studies = Path(folder) / "studies"
        first, *volumes = write_volumes(studies, SHAPE, options.volumes + 1)
        conf["model_dir"] = str(copy_bundled(APP, Path(folder) / "model"))
        with running_server(APP, studies, options.port, conf) as server:
            viewer = Viewer(server.url)
            server.wait_for_openvino(options.runtime)
            viewer.infer("biosam2_point", first, {"foreground": [[64, 64, 8]], **VIEWER_OPTIONS})
            resident = measure(viewer, psutil.Process(server.pid), volumes, options.clicks)
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    text = report(resident, options.clicks, f"Runtime {options.runtime}, {facts}")
    write_report(text, options.output, "memory_growth")
    print(text)


if __name__ == "__main__":
    main()
