"""Quality of the uncertainty signals: rank correlation with the true error, on real images.

Objects with ground truth are prompted with a jittered box and with one random click. The error is 1 - Dice;
``lib.scoring.signals`` computes each signal without the ground truth. Spearman's correlation measures how
well a signal ranks answers by their error: 1 is perfect, 0 is chance. Runs in one process, without a server.
``make bench-signals`` runs it.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import spearmanr

from benchmarks.items import ROOT, Item, find_items
from benchmarks.machine import cores
from benchmarks.publish import write_report
from benchmarks.server import APP
from benchmarks.tables import number
from benchmarks.targets import choose_targets, largest_island
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.evaluation.results import markdown_table
from lib.images.reading import read_image
from lib.labels.labelled_slices import image_frames
from lib.metrics.segmentation import dice
from lib.prompts.simulation import jittered_box, random_clicks
from lib.prompts.types import FramePrompts
from lib.scoring.signals import JITTER, SIGNALS, combine, jitter_signal, native_mask, object_signals
from lib.settings import Settings
from lib.transforms.frames import FrameStack

Mask = NDArray[np.bool_]

BOX, CLICK = "box", "1 click"
SCORE = "score"
# Slices per labelled structure of a volume; the four BraTS volumes have one structure each.
SLICES_EACH, SLICES_OF_BRATS = 4, 12
MOST_CELLS, MOST_PIECES = 60, 30
LEAST_PIXELS = 50
JITTERS = 4
# Smallest number of objects with a meaningful correlation.
LEAST_OBJECTS = 20
# p-value below which a correlation is bold.
_SIGNIFICANT = 0.05
_ALL = "all"


@dataclass(frozen=True)
class SignalSample:
    """Signals and true error of one answer.

    Attributes:
        group: Kind of image.
        seen: Whether training may use the image.
        prompt: Kind of prompt.
        error: 1 - Dice.
        signals: Signals and their combined score by name.
    """

    group: str
    seen: bool | None
    prompt: str
    error: float
    signals: dict[str, float]


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signals", description=__doc__)
    parser.add_argument("--model", default=None, help="a registry name, a version or a path")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU, 0 for half of the cores")
    parser.add_argument(
        "--items", nargs="*", default=[], help="only images whose id holds one of these words"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks")
    return parser.parse_args(argv)


def group_of(item: Item) -> str:
    """Kind of image in the report."""
    kinds = {"fluorescence microscopy": "nuclei", "electron microscopy": "EM"}
    return "BraTS" if item.id.startswith("brats") else kinds.get(item.modality, item.modality.split()[0])


def objects_of(item: Item, label: NDArray[np.int32]) -> Iterator[tuple[int, Mask]]:
    """Slice and mask (H, W) of the prompted objects: a reproducible choice.

    Args:
        item: Image.
        label: Label values (I, J, K).
    """
    rng = np.random.default_rng(0)
    if item.rule == "instances":
        flat = label[:, :, 0].T
        for value in rng.permutation(np.unique(flat[flat > 0]))[:MOST_CELLS].tolist():
            yield 0, flat == value
    elif item.rule == "components":
        pieces, count = ndimage.label(label[:, :, 0].T > 0)
        sizes = np.bincount(pieces.ravel())
        large = [piece for piece in range(1, count + 1) if sizes[piece] >= LEAST_PIXELS]
        for piece in rng.permutation(large)[:MOST_PIECES].tolist():
            yield 0, pieces == piece
    else:
        most = SLICES_OF_BRATS if group_of(item) == "BraTS" else SLICES_EACH
        for target in choose_targets(item, label):
            held = np.flatnonzero(target.voxels.sum((0, 1)) >= LEAST_PIXELS)
            places = np.unique(np.linspace(0, max(0, len(held) - 1), most).astype(int))
            for index in held[places[: len(held)]].tolist():
                yield index, largest_island(target.voxels[:, :, index].T)


def prompts_for(truth: Mask, rng: np.random.Generator) -> dict[str, FramePrompts]:
    """A jittered box, and one click anywhere on the object."""
    box = FramePrompts.of_box(jittered_box(truth, rng))
    return {BOX: box, CLICK: FramePrompts(random_clicks(truth, 1, rng), np.ones(1, np.int32))}


def answers_of(predictor: Predictor, item: Item) -> Iterator[SignalSample]:
    """The model's answers to both prompts for each object of an image."""
    image = read_image(item.image, 1 << 30)
    frames = image_frames(image)
    for order, (index, truth) in enumerate(objects_of(item, item.read_label())):
        rng = np.random.default_rng([index, order])
        for name, prompts in prompts_for(truth, rng).items():
            error, signals = ask(predictor, frames, index, prompts, truth, rng)
            yield SignalSample(group_of(item), item.seen, name, error, signals)


def ask(
    predictor: Predictor,
    frames: FrameStack,
    index: int,
    prompts: FramePrompts,
    truth: Mask,
    rng: np.random.Generator,
) -> tuple[float, dict[str, float]]:
    """Error of one answer, and its signals with their combined score."""
    outputs = predictor.outputs(frames, index, [prompts])
    mask = native_mask(outputs.logits[0], frames.height, frames.width)
    signals = object_signals(outputs, 0)
    shaken = jitter_signal(predictor, frames, index, mask, JITTERS, rng)
    if shaken is not None:
        signals[JITTER] = shaken
    return 1.0 - dice(mask, truth), {**signals, SCORE: combine(signals)}


def correlation(answers: Sequence[SignalSample], signal: str) -> tuple[float, float]:
    """Spearman's correlation of a signal with the error, and its p-value.

    Both are NaN if too few answers have the signal, or all have the same value.
    """
    pairs = [(answer.signals[signal], answer.error) for answer in answers if signal in answer.signals]
    if len(pairs) < LEAST_OBJECTS or len({told for told, _ in pairs}) < 2:
        return float("nan"), float("nan")
    found = spearmanr(*zip(*pairs, strict=True))
    return float(found.statistic), float(found.pvalue)


def table(answers: Sequence[SignalSample]) -> str:
    """A table with a line per prompt and kind of image, and a column per signal."""
    rows = []
    for prompt in (BOX, CLICK):
        asked = [answer for answer in answers if answer.prompt == prompt]
        for group in [*dict.fromkeys(answer.group for answer in asked), _ALL]:
            own = [answer for answer in asked if group in (answer.group, _ALL)]
            if len(own) >= LEAST_OBJECTS:
                error = number(float(np.mean([answer.error for answer in own])))
                cells = [_cell(*correlation(own, signal)) for signal in (*SIGNALS, SCORE)]
                rows.append([prompt, group, str(len(own)), error, *cells])
    names = [name.replace("_", " ").replace("iou", "IoU") for name in (*SIGNALS, SCORE)]
    return markdown_table(["prompt", "images", "n", "mean error", *names], rows)


def _cell(value: float, chance: float) -> str:
    shown = number(value, 2)
    return f"**{shown}**" if chance < _SIGNIFICANT else shown


def report(answers: Sequence[SignalSample], about: str, weights: str) -> str:
    """The table with an explanation, as Markdown."""
    seen = sorted({answer.group for answer in answers if answer.seen})
    trained = f" The weights were trained on images of these kinds: {', '.join(seen)}." if seen else ""
    protocol = (
        "Spearman's rank correlation of each signal with the true error (1 - Dice) of the model's answer to "
        f"one prompt: 1 is the right order, 0 is chance; bold: p < {_SIGNIFICANT}. The score is the weighted "
        "mean of the signals before calibration; its weights were chosen with this table in view, in coarse "
        "steps." + trained
    )
    return "\n\n".join([about, f"Weights: {weights}.", table(answers), protocol]) + "\n"


def to_csv(answers: Sequence[SignalSample]) -> str:
    """One line per answer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["images", "seen", "prompt", "error", *SIGNALS, SCORE])
    for answer in answers:
        told = [number(answer.signals.get(name), 5) for name in (*SIGNALS, SCORE)]
        writer.writerow([answer.group, answer.seen, answer.prompt, number(answer.error, 5), *told])
    return text.getvalue()


def main(argv: list[str] | None = None) -> None:
    """Measures, prints the report and writes it."""
    options = arguments(argv)
    torch.set_num_threads(options.threads or max(1, cores() // 2))
    engines = PredictorPool(Settings(model=options.model, device=options.device), APP / "model")
    predictor = engines.get()
    answers: list[SignalSample] = []
    with tempfile.TemporaryDirectory(prefix="biosam2_signals_") as work:
        items, about = find_items(Path(work))
        for item in items:
            if not options.items or any(word in item.id for word in options.items):
                started = time.monotonic()
                own = list(answers_of(predictor, item))
                answers += own
                print(f"{item.id}: {len(own)} answers, {time.monotonic() - started:.0f} s", flush=True)
    text = report(answers, about, "; ".join(engines.status()["served"].values()))
    write_report(text, options.output, "signals")
    (options.output / "signals.csv").write_text(to_csv(answers), encoding="utf-8")
    print(text)
    print(f"Written to {options.output}/signals.md and .csv")


if __name__ == "__main__":
    main()
