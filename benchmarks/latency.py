"""How fast: our tasks, MONAI Label's own, and the network alone, in one run (``make bench``).

All servers load the same randomly initialised sam2.1_hiera_tiny file and work at 1024 px: ours with OpenVINO
where it is installed, ours with torch, the peer, and another checkout of ours where one is given. They get
the same requests over HTTP in turns. Then come ours with the bundled weights. Nothing is downloaded, and no
test depends on the outcome.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.checkpoint import peer_config, write_random_checkpoint
from benchmarks.client import Viewer
from benchmarks.floor import Floor
from benchmarks.interleaved import (
    BEFORE,
    OURS,
    PEER,
    TORCH,
    Timings,
    Volume,
    measure_bytes,
    measure_clicks,
    measure_propagation,
    measure_scrolling,
)
from benchmarks.latency_report import (
    bundled_table,
    bytes_table,
    latency_table,
    memory_table,
    parts_table,
    scrolling_table,
)
from benchmarks.machine import busy_warning, machine
from benchmarks.server import APP, RunningServer, copy_bundled, running_server
from benchmarks.volumes import write_volumes
from lib.engine.checkpoints import Weights, sha256_of
from lib.engine.openvino_export import convert_in_child
from lib.engine.openvino_parts import is_chosen, parts_folder
from lib.engine.registry import DeviceType
from lib.engine.runtime import Runtime

ROOT = Path(__file__).resolve().parents[1]
PEER_APP = Path(__file__).resolve().parent / "peer_app"
# The peer's image predictor has fixed grids for this size and fails at others.
IMAGE_SIZE = 1024
# Parts of the run with servers of their own, and what they say of memory.
HALVES = {"clicks": "2-D tasks", "propagation": "3-D tasks"}
BUNDLED = "bundled"
LARGE_SEED = 900

LEGEND = (
    "Times are minimum / median; ratios are of medians. Ours: OpenVINO on a CPU where it is installed; "
    "torch: ours with `runtime=torch`; before: another checkout of ours. Peer: MONAI Label's own `sam_2d` "
    "and `sam_3d`. "
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
    parser.add_argument(
        "--large",
        type=int,
        nargs=3,
        default=(512, 512, 300),
        metavar=("I", "J", "K"),
        help="volume of the bytes",
    )
    parser.add_argument("--port", type=int, default=8120, help="first of two free ports")
    parser.add_argument("--only", choices=[*HALVES, BUNDLED], help="leave the other parts out")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="device of all servers")
    parser.add_argument(
        "--keep", type=Path, help="folder for the weights, to convert them once for several runs"
    )
    parser.add_argument("--before", type=Path, help="another checkout of this project, to compare with")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.propagation_rounds, options.slices, options.large = 1, 1, 3, (128, 128, 40)
    return options


def start_all(
    stack: ExitStack, options: argparse.Namespace, studies: Path, models: Path, checkpoint: Path | None
) -> dict[str, RunningServer]:
    """Starts all servers with the same checkpoint, each with its own datastore of the same files.

    Args:
        stack: Stops them.
        options: The command line.
        studies: Folder of the datastores.
        models: Model folder.
        checkpoint: Weights; None for the bundled ones, which the peer cannot load.
    """
    common = {"device": options.device, "model_dir": str(models)}
    if checkpoint is not None:
        common |= {"model": str(checkpoint), "image_size": str(IMAGE_SIZE)}
    starts: dict[str, tuple[Path, dict[str, str]]] = {
        OURS: (APP, common),
        TORCH: (APP, {**common, "runtime": "torch"}),
    }
    if checkpoint is not None:
        peer = {"checkpoint": str(checkpoint), "config": str(peer_config(checkpoint))}
        starts[PEER] = (PEER_APP, peer)
        if options.before is not None:
            starts[BEFORE] = (options.before / "apps" / "biosam2", common)
    servers = {}
    for number, (who, (app, conf)) in enumerate(starts.items()):
        paths = {"PYTHONPATH": f"{app}:{app.parents[1]}"}
        servers[who] = stack.enter_context(
            running_server(app, studies / who, options.port + number, conf, name=who, environment=paths)
        )
        if who == OURS and options.device == "cpu":
            servers[who].wait_for_openvino("auto")
    return servers


def same_volumes(studies: Path, shape: tuple[int, int, int], count: int, seed: int) -> list[Volume]:
    """Writes the same volumes to all datastores."""
    for who in (OURS, TORCH, BEFORE, PEER):
        names = write_volumes(studies / who, shape, count, first_seed=seed)
    return [Volume(name, shape) for name in names]


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Clicks on one set of servers, propagation on another, to separate their peak memory."""
    kept = options.keep or work
    checkpoint = write_random_checkpoint(kept / "weights")
    if not (kept / "model").exists():
        copy_bundled(APP, kept / "model")
    _convert(checkpoint, kept / "model", options.device)
    timings, bundled, memory, wire_bytes = Timings(), Timings(), {}, {}
    i, j, k = options.shape
    parts: dict[str, tuple[tuple[int, int, int], int, Timings]] = {
        "clicks": ((i, j, k), options.rounds, timings),
        "propagation": ((i, j, options.slices), options.propagation_rounds, timings),
        BUNDLED: ((i, j, options.slices), options.rounds, bundled),
    }
    for seed, (part, (shape, rounds, found)) in enumerate(parts.items()):
        if options.only not in (None, part):
            continue
        # Propagation warms up on the two slices that fill a memory.
        first = (i, j, 2) if part == "propagation" else shape
        volumes = same_volumes(work / part, first, 1, 100 * seed)
        volumes += same_volumes(work / part, shape, rounds, 100 * seed + 1)
        with ExitStack() as stack:
            weights = None if part == BUNDLED else checkpoint
            servers = start_all(stack, options, work / part, kept / "model", weights)
            viewers = {who: Viewer(server.url) for who, server in servers.items()}
            print(f"{part}: {', '.join(servers)} are up, {rounds} rounds on {shape} ...", flush=True)
            floor = None if part == BUNDLED else _floor(checkpoint, options.device)
            if part != "propagation":
                measure_clicks(viewers, floor, volumes, work, found)
                measure_scrolling(viewers, volumes, found)
            if part != "clicks":
                measure_propagation(viewers, floor, volumes, found)
            if part in HALVES:
                memory[HALVES[part]] = {who: server.peak_memory_mb() for who, server in servers.items()}
            if part == "clicks":
                # After the memory was read: the whole answers of the peer take much of it.
                (large,) = same_volumes(work / part, tuple(options.large), 1, LARGE_SEED)
                wire_bytes = measure_bytes(viewers, large, options.rounds, timings)
    results = {"seconds": timings.seconds, "bundled": bundled.seconds}
    return {**results, "memory_mb": memory, "wire_bytes": wire_bytes}


def _parts(checkpoint: Path, device: DeviceType) -> tuple[Weights, torch.dtype, Path]:
    """The weights, the number format of our server, and the folder of what OpenVINO computes."""
    weights = Weights(checkpoint.stem, checkpoint, None, IMAGE_SIZE, None, "")
    dtype = Runtime(torch.device(device), "auto").dtype
    return weights, dtype, parts_folder(weights, sha256_of(checkpoint), IMAGE_SIZE, dtype)


def _convert(checkpoint: Path, models: Path, device: DeviceType) -> None:
    """Converts the weights before the servers start, which then find it: its memory is none of theirs."""
    weights, dtype, folder = _parts(checkpoint, device)
    if is_chosen("auto", device) and not folder.exists():
        print("Converting for OpenVINO ...", flush=True)
        convert_in_child(weights, models, dtype, folder)


def _floor(checkpoint: Path, device: DeviceType) -> Floor:
    """The network's parts, in the runtime of our server."""
    _, dtype, folder = _parts(checkpoint, device)
    return Floor(checkpoint, IMAGE_SIZE, dtype, device, folder if is_chosen("auto", device) else None)


def report(results: dict[str, Any]) -> str:
    """The report as Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    settings = ", ".join(f"{name} {value}" for name, value in results["settings"].items())
    seconds = results["seconds"]
    tables = [latency_table(seconds), scrolling_table(seconds), memory_table(results["memory_mb"])]
    if results.get("wire_bytes"):
        tables.append(bytes_table(seconds, results["wire_bytes"], results["settings"]["large volume"]))
    if results.get("bundled"):
        tables += [bundled_table(results["bundled"]), scrolling_table(results["bundled"])]
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
    if options.device == "cuda" and not torch.cuda.is_available():
        print("Not run: torch finds no CUDA device here. The results of a CPU are left as they are.")
        return
    warning = busy_warning()
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="biosam2_latency_", ignore_cleanup_errors=True) as work:
        results = run(options, Path(work))
    settings = {
        "network": "sam2.1_hiera_tiny with random weights",
        "input": f"{IMAGE_SIZE} px",
        "device": options.device,
        "number format of ours and of the floor": str(
            Runtime(torch.device(options.device), "auto").dtype
        ).removeprefix("torch."),
        "volume": "x".join(map(str, options.shape)) + " int16",
        "propagated slices": str(options.slices),
        "large volume": "x".join(map(str, options.large)),
    }
    results = {"machine": facts, "settings": settings, "warning": warning, **results}
    write(results, options.output)
    print(report(results))
    print(f"Written to {options.output}/latency.md and latency.json")


if __name__ == "__main__":
    main()
