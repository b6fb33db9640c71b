"""Draw a training's log: `python -m pretraining.curves LOG.csv OUT.png`."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

KINDS = {
    "box": "box",
    "click": "1 click",
    "clicks": "3 or 5 clicks",
    "corrected": "corrected",
    "fed back": "corrected, last mask fed back",
    "tracked": "tracked",
}
_SMOOTH = 9  # rows a running median takes in: scenes differ much from batch to batch


def _column(rows: list[dict[str, str]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and running median of a column, where it has values."""
    # A resumed training repeats some steps: the later row counts.
    found = sorted({int(r["step"]): float(r[name]) for r in rows if r.get(name)}.items())
    if not found:
        return np.zeros(0), np.zeros(0)
    steps, values = (np.array(v) for v in zip(*found, strict=True))
    half = _SMOOTH // 2
    smooth = [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    return steps, np.array(smooth)


def draw(log: Path, out: Path) -> None:
    """Loss on the left; Dice by kind of prompt, on scenes just made, on the right."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), dpi=80)
    left.plot(*_column(rows, "loss"), color="black", linewidth=1)
    left.set(xlabel="step", ylabel="loss")
    for name, label in KINDS.items():
        right.plot(*_column(rows, name), label=label, linewidth=1)
    right.set(xlabel="step", ylabel="Dice on training scenes", ylim=(0, 1))
    right.legend(fontsize=8, loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out)
    plt.close(figure)


def main() -> None:
    """Draw one log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    draw(args.log, args.out)


if __name__ == "__main__":
    main()
