"""Prompt-free classes against one prompt: a trained ``auto_head`` and memory, from 4 and 16 labelled images.

Of the head's hypernetworks three kinds are compared: the one that is served (two linear layers), one linear
layer, and a layer of radial functions, as SAM2-PATH's KAN. ``make bench-auto-head`` runs it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.items import DATA_VARIABLE, ROOT, TRAINING_VARIABLE
from benchmarks.one_prompt import CONFIDENCE, Collection, divided, kinds, remembered, trained
from benchmarks.publish import write_report
from benchmarks.server import APP
from benchmarks.tables import number
from lib.engine import auto_head
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.evaluation.results import markdown_table
from lib.settings import Settings

COUNTS = (4, 16)
KINDS = ("cells, EM", "nuclei", "liver", "spleen", "kidney_left")
_CENTRES = 8  # radial functions of each input


class RadialLayer(nn.Module):
    """A layer of a Kolmogorov-Arnold network: each output is a sum of a learned function of each input.

    The functions are sums of Gaussians on a fixed grid in place of B-splines (FastKAN, Li 2024), beside
    SiLU as in KAN (Liu et al. 2024).
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.base = nn.Linear(inputs, outputs)
        self.radial = nn.Linear(inputs * _CENTRES, outputs, bias=False)
        self.register_buffer("centres", torch.linspace(-2, 2, _CENTRES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, outputs) of (B, inputs)."""
        step = 4 / (_CENTRES - 1)
        bumps = torch.exp(-(((self.norm(x)[..., None] - self.centres) / step) ** 2))
        out: torch.Tensor = self.base(nn.functional.silu(x)) + self.radial(bumps.flatten(-2))
        return out


HYPERNETWORKS: dict[str, Callable[[], nn.Module]] = {
    "head": auto_head.hypernetwork,
    "linear head": partial(nn.Linear, auto_head.WIDTH, auto_head.WIDTH + 1),
    "KAN head": partial(RadialLayer, auto_head.WIDTH, auto_head.WIDTH + 1),
}


def columns() -> list[str]:
    """Methods and numbers of labelled images, as columns."""
    return [f"{method} {count}" for count in COUNTS for method in ("one prompt", *HYPERNETWORKS)]


def run(predictor: Predictor, work: Path, words: tuple[str, ...], seed: int) -> list[list[float | str]]:
    """A row for each kind: its name, the number of its tests, and the Dice of every column or NaN."""
    rows: list[list[float | str]] = []
    served = auto_head.hypernetwork
    for kind, examples in kinds(Collection(work), words):
        labelled, tests = divided(examples, np.random.default_rng(seed))
        scores: list[float] = []
        for count in COUNTS:
            enough = len(labelled) >= count
            scores.append(remembered(predictor, labelled[:count], tests, CONFIDENCE) if enough else np.nan)
            for make in HYPERNETWORKS.values():
                auto_head.hypernetwork = make
                scores.append(trained(predictor, labelled[:count], tests) if enough else np.nan)
            auto_head.hypernetwork = served
        print(kind, dict(zip(columns(), np.round(scores, 3).tolist(), strict=True)), flush=True)
        rows.append([kind, f"{len(tests)}", *scores])
    return rows


def report(rows: list[list[float | str]], weights: str) -> str:
    """The section of RESULTS.md."""
    values = np.array([row[2:] for row in rows], float)
    mean = ["mean", "", *np.nanmean(values, axis=0).tolist()]
    cells = [
        [row[0], row[1], *(number(None if np.isnan(v) else float(v)) for v in row[2:])]
        for row in [*rows, mean]
    ]
    text = (
        f"Weights: {weights}. Number of labelled images after each method; images to segment are the same in "
        "a row, and the mean of a column is over the kinds that have so many images."
    )
    return "\n\n".join([text, markdown_table(["mean Dice", "images", *columns()], cells)])


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark and writes its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="*", default=KINDS, help="words of the kinds of image")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    predictor = PredictorPool(Settings(), APP / "model").get()
    with tempfile.TemporaryDirectory() as work:
        rows = run(predictor, Path(work), tuple(options.kinds), options.seed)
    if not rows:
        raise SystemExit(f"No real images: {DATA_VARIABLE} and {TRAINING_VARIABLE} name no folders")
    write_report(report(rows, f"{predictor.name}, {predictor.image_size} px"), options.output, "auto_head")


if __name__ == "__main__":
    main()
