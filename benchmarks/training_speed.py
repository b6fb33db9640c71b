"""Training speed: images per second, peak memory, and the share of a step outside the network.

Runs real optimisation steps of ``lib/trainers`` on labelled phantoms. Only the shapes of the weights matter,
so they are random. ``make bench-training`` runs it.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from benchmarks.items import ROOT
from benchmarks.machine import machine
from benchmarks.server import APP
from benchmarks.tables import number
from lib.engine.builder import build_network
from lib.engine.network import EmbeddingCache, Network
from lib.engine.registry import BUNDLED, Registry
from lib.engine.runtime import Runtime, resolve_device
from lib.evaluation.results import markdown_table
from lib.trainers.config import TrainOptions
from lib.trainers.frames import LabelledImage, prepare_frames
from lib.trainers.optimizer import NetworkOptimizer
from lib.trainers.sampler import Sampler

WARM_UP = 3  # steps that select kernels and fill memory pools
_SHAPE = (512, 512, 24)  # phantom with the size of CT slices


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed", description=__doc__)
    parser.add_argument("--weights", default=BUNDLED, help="a name of the registry: which architecture")
    parser.add_argument("--preset", default="paper", choices=["paper", "decoder", "video"])
    parser.add_argument("--image-size", type=int, default=0, help="0 for that of the weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:N; empty for the best there is")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    return parser.parse_args(argv)


class NetworkClock:
    """Measures the time inside the network: its calls, backward and the optimiser, synchronised."""

    def __init__(self, device: torch.device):
        self._device = device
        self._inside = False
        self.seconds = 0.0

    @contextmanager
    def running(self, network: Network) -> Iterator[None]:
        """Measures while the context is open."""
        places: list[tuple[Any, str]] = [(network, "encode"), (network, "segment"), (network, "track")]
        places += [(network, "remember"), (torch.Tensor, "backward"), (torch.optim.AdamW, "step")]
        originals = [(owner, name, getattr(owner, name)) for owner, name in places]
        for owner, name, original in originals:
            setattr(owner, name, self._timed(original))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **others: Any) -> Any:
            if self._inside:
                return call(*args, **others)
            self._wait()
            started, self._inside = time.perf_counter(), True
            try:
                result = call(*args, **others)
                self._wait()
            finally:
                self._inside = False
                self.seconds += time.perf_counter() - started
            return result

        return timed

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def write_phantom(folder: Path) -> LabelledImage:
    """Writes a labelled volume of three discs in noise."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, _SHAPE).astype(np.float32)
    labels = np.zeros(_SHAPE, np.uint8)
    grid = np.indices(_SHAPE[:2])
    for value, (x, y, radius) in enumerate([(150, 200, 60), (330, 120, 40), (300, 380, 80)], 1):
        body = (grid[0] - x) ** 2 + (grid[1] - y) ** 2 < radius**2
        image[body] += 30 * value
        labels[body] = value
    case = LabelledImage("phantom", folder / "phantom.nii.gz", folder / "label.nii.gz")
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), case.image)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), case.label)
    return case


def measure(options: argparse.Namespace) -> dict[str, str]:
    """Trains ``options.steps`` steps. Returns the numbers as text."""
    registry = Registry(APP / "model")
    entry = registry.entry(options.weights)
    runtime = Runtime(resolve_device(options.device), "auto")
    size = options.image_size or entry.image_size[runtime.type]
    network = build_network(registry.config_path(entry.config), size, single_mask=True)
    network.rendered_prompts = entry.rendered_prompts
    train_options = TrainOptions(preset=options.preset, batch_size=options.batch)
    with tempfile.TemporaryDirectory() as folder:
        image = prepare_frames(write_phantom(Path(folder)), Path(folder) / "frames", 10**9)
        sampler = Sampler([image], size, train_options)
        optimizer = NetworkOptimizer(network, train_options, sampler, runtime, EmbeddingCache(4 << 30))
        for _ in range(WARM_UP):
            optimizer.advance(0.0)
        if runtime.type == "cuda":
            torch.cuda.reset_peak_memory_stats(runtime.device)
        clock = NetworkClock(runtime.device)
        started = time.perf_counter()
        with clock.running(network):
            for _ in range(options.steps):
                optimizer.advance(0.0)
        seconds = time.perf_counter() - started
    return {
        "weights": options.weights,
        "preset": options.preset,
        "px": str(size),
        "batch": str(options.batch),
        "precision": str(runtime.dtype).removeprefix("torch."),
        "images/s": number(options.steps * options.batch / seconds, 2),
        "s a step": number(seconds / options.steps, 3),
        "outside the network": f"{100 * (1 - clock.seconds / seconds):.0f}%",
        "peak memory": f"{peak_memory_gb(runtime.device):.1f} GB",
    }


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory of a CUDA device, else of the process, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(argv: list[str] | None = None) -> None:
    """Measures, prints the table and writes it."""
    options = arguments(argv)
    row = measure(options)
    facts = machine()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else facts["processor"]
    text = f"{options.steps} steps on {where}.\n\n{markdown_table(list(row), [list(row.values())])}\n"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "training_speed.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
