"""Zoom and local corrections, on and off: Dice, harmful corrections and clicks that were not obeyed.

Measured on images that the bundled weights were not trained on.

The predictor is asked directly, so that a table takes minutes:
``python -m benchmarks.interaction DATA [DATA ...]``, a data pack being a folder with a manifest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.items import read_items
from benchmarks.targets import Target, choose_targets
from benchmarks.trials import click_series
from lib.engine.interactive import AnswerCache, InteractiveSegmenter
from lib.engine.predictor_pool import PredictorPool
from lib.images.reading import read_image
from lib.metrics.segmentation import dice
from lib.prompts.types import FramePrompts
from lib.settings import Settings, Zoom
from lib.transforms.frames import FrameStack

MODEL_DIR = Path(__file__).resolve().parents[1] / "apps" / "biosam2" / "model"
# Whether corrections are local, and what is zoomed.
MODES: dict[str, tuple[bool, Zoom]] = {
    "plain": (False, "off"),
    "corrections": (True, "off"),
    "zoom": (False, "all"),
    "zoom for boxes, corrections": (True, "boxes"),
    "default": (True, "all"),
}
COUNTS = (1, 3, 5)
# A correction that loses more than this is harmful: Dice.
HARM = 0.02


@dataclass
class ModeResult:
    """What was measured in one mode.

    Attributes:
        dice: By prompt, a value for each object.
        corrections: Number of corrections that were made.
        harmful: Number of corrections that lost more than ``HARM``.
        disobeyed: Number of clicks, counted in every answer, whose pixel had the other label.
    """

    dice: dict[str, list[float]] = field(default_factory=dict)
    corrections: int = 0
    harmful: int = 0
    disobeyed: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interaction", description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="folders with a manifest.json")
    parser.add_argument("--modes", nargs="*", default=list(MODES), choices=list(MODES))
    parser.add_argument("--objects", type=int, default=2, help="most objects of an image")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    parser.add_argument("--small", action="store_true", help="only objects that zoom may change")
    parser.add_argument("--model", help="registry name or path of the weights")
    parser.add_argument("--output", type=Path, help="JSON file of all values")
    options = parser.parse_args(argv)
    pool = PredictorPool(Settings(threads=1, model=options.model), MODEL_DIR)
    results = {mode: ModeResult() for mode in options.modes}
    for target, frames in _targets(options):
        for mode in options.modes:
            local, zoom = MODES[mode]
            segmenter = InteractiveSegmenter(pool.get(), AnswerCache() if local else None, zoom=zoom)
            _measure(segmenter, frames, target, results[mode], obeys=mode != "plain")
    print(_table(results))
    if options.output:
        options.output.write_text(json.dumps({mode: vars(found) for mode, found in results.items()}))


def _targets(options: argparse.Namespace) -> Iterator[tuple[Target, FrameStack]]:
    for folder in options.data:
        items = [item for item in read_items(folder) if not item.seen]
        for item in items[:: options.every]:
            image = read_image(item.image, 1 << 30)
            frames = FrameStack(image.array, 2, image.window(), image.digest)
            for target in choose_targets(item, item.read_label())[: options.objects]:
                x0, y0, x1, y1 = target.box()
                if not options.small or 3 * max(x1 - x0, y1 - y0) < max(frames.height, frames.width):
                    yield target, frames


def _measure(
    segmenter: InteractiveSegmenter, frames: FrameStack, target: Target, result: ModeResult, obeys: bool
) -> None:
    truth = target.truth
    ask = segmenter.segment if obeys else segmenter.predictor.segment

    def clicked(clicks: Sequence) -> NDArray[np.bool_]:
        points = np.array([(click.x, click.y) for click in clicks], np.float32)
        signs = np.array([click.positive for click in clicks], np.int32)
        return ask(frames, target.index, FramePrompts(points, signs)).mask

    box = ask(frames, target.index, FramePrompts.of_box(np.array(target.box(), np.float32))).mask
    result.dice.setdefault("box", []).append(dice(box, truth))
    series = click_series(truth, clicked)
    values = [dice(mask, truth) for _, mask in series]
    result.corrections += len(values) - 1
    result.harmful += sum(after < before - HARM for before, after in pairwise(values))
    result.disobeyed += sum(
        bool(mask[click.y, click.x]) != click.positive for clicks, mask in series for click in clicks
    )
    for count in COUNTS:
        result.dice.setdefault(f"{count} clicks", []).append(values[min(count, len(values)) - 1])


def _table(results: dict[str, ModeResult]) -> str:
    prompts = ["box", *(f"{count} clicks" for count in COUNTS)]
    lines = ["| mode | objects | " + " | ".join(prompts) + " | harmful corrections | disobeyed clicks |"]
    lines.append("|" + "---|" * (len(prompts) + 4))
    for mode, found in results.items():
        means = " | ".join(f"{np.mean(found.dice[prompt]):.3f}" for prompt in prompts)
        share = found.harmful / max(found.corrections, 1)
        harmful = f"{found.harmful} of {found.corrections} ({share:.1%})"
        lines.append(f"| {mode} | {len(found.dice['box'])} | {means} | {harmful} | {found.disobeyed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
