"""How fast: our tasks, MONAI Label's own, and the network alone, in one run (``make bench``).

Both servers load the same randomly initialised sam2.1_hiera_tiny file and work at 1024 px on the CPU. They
get the same requests over HTTP in turns. Nothing is downloaded, and no test depends on the outcome.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import peer_config, write_random_checkpoint
from benchmarks.client import Viewer
from benchmarks.floor import Floor, cpu_precision
from benchmarks.interleaved import OURS, PEER, Timings, Volume, measure_clicks, measure_propagation
from benchmarks.latency_report import latency_table, memory_table, parts_table
from benchmarks.machine import busy_warning, machine
from benchmarks.server import APP, RunningServer, running_server
from benchmarks.volumes import write_volumes

ROOT = Path(__file__).resolve().parents[1]
PEER_APP = Path(__file__).resolve().parent / "peer_app"
# The peer's image predictor has fixed grids for this size and fails at others.
IMAGE_SIZE = 1024

LEGEND = (
    "Times are minimum / median; ratios are of medians. Peer: MONAI Label's own `sam_2d` and `sam_3d`. "
    "Floor: the network's parts called directly in one process with the same weights, input size and number "
    "format, and the answer written (a cold click: encoder, decoder, write; a second one: decoder, write)."
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, three slices: does it run at all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of clicks, each on a new volume")
    parser.add_argument("--propagation-rounds", type=int, default=3, help="rounds of propagation")
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 24), metavar=("I", "J", "K"))
    parser.add_argument("--slices", type=int, default=12, help="slices of the volumes that are propagated")
    parser.add_argument("--port", type=int, default=8120, help="first of two free ports")
    parser.add_argument("--only", choices=["clicks", "propagation"], help="leave the other half out")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.propagation_rounds, options.slices = 1, 1, 3
    return options


def start_both(stack: ExitStack, checkpoint: Path, studies: Path, port: int) -> dict[str, RunningServer]:
    """Starts both servers with the same checkpoint, each with its own datastore of the same files."""
    ours = {"model": str(checkpoint), "image_size": str(IMAGE_SIZE)}
    peer = {"checkpoint": str(checkpoint), "config": str(peer_config(checkpoint))}
    return {
        OURS: stack.enter_context(running_server(APP, studies / OURS, port, ours, name=OURS)),
        PEER: stack.enter_context(running_server(PEER_APP, studies / PEER, port + 1, peer, name=PEER)),
    }


def volumes_for_both(studies: Path, shape: tuple[int, int, int], count: int, seed: int) -> list[Volume]:
    """Writes the same volumes to both datastores."""
    for who in (OURS, PEER):
        names = write_volumes(studies / who, shape, count, first_seed=seed)
    return [Volume(name, shape) for name in names]


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Clicks on one pair of servers, propagation on another, to separate their peak memory."""
    checkpoint = write_random_checkpoint(work / "weights")
    floor = Floor(checkpoint, IMAGE_SIZE, cpu_precision())
    timings, memory = Timings(), {}
    i, j, k = options.shape
    halves = {
        "clicks": ("2-D tasks", (i, j, k), options.rounds, 0),
        "propagation": ("3-D tasks", (i, j, options.slices), options.propagation_rounds, 100),
    }
    for half, (kind, shape, rounds, seed) in halves.items():
        if options.only not in (None, half):
            continue
        studies = work / half
        volumes = volumes_for_both(studies, shape, rounds + 1, seed)
        with ExitStack() as stack:
            servers = start_both(stack, checkpoint, studies, options.port)
            viewers = {who: Viewer(server.url) for who, server in servers.items()}
            print(f"{half}: both servers are up, {rounds} rounds on {shape} ...", flush=True)
            if half == "clicks":
                measure_clicks(viewers, floor, volumes, work, timings)
            else:
                measure_propagation(viewers, floor, volumes, timings)
            memory[kind] = {who: server.peak_memory_mb() for who, server in servers.items()}
    return {"seconds": timings.seconds, "memory_mb": memory}


def report(results: dict[str, Any]) -> str:
    """The report as Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    settings = ", ".join(f"{name} {value}" for name, value in results["settings"].items())
    tables = [latency_table(results["seconds"]), memory_table(results["memory_mb"])]
    warning = [f"**{results['warning']}**"] if results["warning"] else []
    return "\n\n".join([f"{facts}.", f"{settings}.", *warning, *tables, LEGEND]) + "\n"


def write(results: dict[str, Any], folder: Path) -> None:
    """Writes the report with the floor's parts, and every number."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latency.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    whole = f"{report(results)}\n{parts_table(results['seconds'])}\n"
    (folder / "latency.md").write_text(whole, encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Measures, prints the report and writes it beside the raw numbers."""
    options = arguments(argv)
    warning = busy_warning()
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="biosam2_latency_", ignore_cleanup_errors=True) as work:
        results = run(options, Path(work))
    settings = {
        "network": "sam2.1_hiera_tiny with random weights",
        "input": f"{IMAGE_SIZE} px",
        "number format of ours and of the floor": str(cpu_precision()).removeprefix("torch."),
        "volume": "x".join(map(str, options.shape)) + " int16",
        "propagated slices": str(options.slices),
    }
    results = {"machine": facts, "settings": settings, "warning": warning, **results}
    write(results, options.output)
    print(report(results))
    print(f"Written to {options.output}/latency.md and latency.json")


if __name__ == "__main__":
    main()
