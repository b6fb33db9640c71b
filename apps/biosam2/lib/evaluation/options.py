"""What an evaluation was asked to do: every option, checked once."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from lib.engine.download import MODEL_DIR
from lib.engine.registry import BUNDLED
from lib.errors import EvaluationError
from lib.settings import IMAGE_SIZE_RANGE, IMAGE_SIZE_STEP

PipelineName = Literal["image", "volume", "video"]
SliceRule = Literal["middle", "largest"]

PIPELINES: tuple[PipelineName, ...] = get_args(PipelineName)
# Yan et al. 2024, Tables 2 to 4.
PAPER_CLICKS = (1, 3, 5)
PAPER_FRAMES = (1, 2, 4, 6, 8)
# The paper does not say how far apart surfaces may lie. U-Mamba, whose splits it takes, allows 2 pixels of
# endoscopy and 2 mm of small organs; presets have the rest.
DEFAULT_TOLERANCE_MM = 2.0
# One slice says little of an organ, all of them hardly more than eight.
DEFAULT_SLICES = 8
# More objects in one pass only save the decoding of frames that fell out of the embedding cache.
DEFAULT_BATCH = 8
MOST_CLICKS = 100


@dataclass(frozen=True)
class Options:
    """The options of one evaluation.

    Attributes:
        data: folder of the images with their labels.
        output: folder for the results; a second run with the same goes on where the first stopped.
        pipeline: ``image``, ``volume``, ``video``, or ``all`` for what suits each image.
        preset: name of the layout of ``data`` in ``presets.yaml``; None: a datastore, or clips.
        weights: registry names, paths, or names of published versions.
        model_dir: folder of ``registry.yaml`` and of the published versions.
        clicks: numbers of clicks to try.
        frames: numbers of prompted frames to try in a video.
        box: whether images are prompted with a box too.
        jitter: how badly boxes are drawn: deviation of each border as a part of the box's side; 0 for tight.
        slice: where the box of a volume's object is drawn: on the middle or the largest slice of the object.
        slices: most slices of each object where a volume is read as images; 0 for all.
        axis: slice axis of volumes.
        limit: most images; 0 for all.
        objects: most objects in each image, drawn by chance; 0 for all.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        image_size: side of the networks' input in pixels; None: what suits the weights.
        tolerance_mm: distance below which surfaces count as the same; None: the preset's.
        seed: of every random choice.
        batch: objects that are followed through the frames at once. It changes no result.
        instances: the one class of all objects, where labels number objects and not classes.
    """

    data: Path
    output: Path
    pipeline: PipelineName | Literal["all"] = "all"
    preset: str | None = None
    weights: tuple[str, ...] = (BUNDLED,)
    model_dir: Path = MODEL_DIR
    clicks: tuple[int, ...] = PAPER_CLICKS
    frames: tuple[int, ...] = PAPER_FRAMES
    box: bool = False
    jitter: float = 0.0
    slice: SliceRule = "middle"
    slices: int = DEFAULT_SLICES
    axis: int = 2
    limit: int = 0
    objects: int = 0
    device: str = "auto"
    image_size: int | None = None
    tolerance_mm: float | None = None
    seed: int = 0
    batch: int = DEFAULT_BATCH
    instances: str | None = None

    def deciding(self) -> dict[str, Any]:
        """The options that change the value of a row, and not only which rows there are."""
        return {
            "seed": self.seed,
            "axis": self.axis,
            "slice": self.slice,
            "slices": self.slices,
            "jitter": self.jitter,
            "objects": self.objects,
            "instances": self.instances,
        }


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as an error with one line, and leaves the exit to the caller."""

    def error(self, message: str) -> NoReturn:
        raise EvaluationError(f"{message}; --help lists every option")


def parse_options(arguments: Sequence[str], presets: Sequence[str]) -> Options:
    """Reads a command line.

    Args:
        arguments: without the program's name.
        presets: the names that ``--preset`` may have.

    Raises:
        EvaluationError: naming the option, its value and what is allowed.
    """
    given = vars(_parser(presets).parse_args(arguments))
    taken = {name: value for name, value in given.items() if value is not None}
    taken["weights"] = tuple(taken.get("weights", Options.weights))
    options = Options(**taken)
    if not options.data.is_dir():
        raise EvaluationError(f"--data {options.data} is no folder: name the folder that holds the images")
    if options.output.exists() and not options.output.is_dir():
        raise EvaluationError(f"--output {options.output} is a file: name a folder, or one to be made")
    return options


def _parser(presets: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m lib.evaluation", description="Measure weights as the BioSAM-2 paper does."
    )
    add = parser.add_argument
    add("pipeline", nargs="?", choices=(*PIPELINES, "all"), help="all: what suits each image (default)")
    add("--data", type=Path, required=True, help="a datastore with labels/final, clips, or a preset's folder")
    add("--preset", choices=sorted(presets), help="a public dataset as it lies on disk")
    add(
        "--weights",
        nargs="+",
        type=str,
        help="registry names, files, published versions; several: side by side",
    )
    add("--model-dir", type=Path, help="the folder with registry.yaml")
    add("--output", type=Path, default=Path("outputs/evaluation"), help="the same folder again: it goes on")
    add("--clicks", type=_counts(MOST_CLICKS), help="numbers of clicks, 1,3,5 by default")
    add("--frames", type=_counts(), help="numbers of prompted frames of a video, 1,2,4,6,8 by default")
    add("--box", action="store_true", default=None, help="images: a box too")
    add("--jitter", type=_number(0.0, 1.0), help="boxes as a person draws them: 0.1; 0 (default): tight")
    add("--slice", choices=get_args(SliceRule), help="volumes: the slice of the box")
    add("--slices", type=_whole(0), help="volumes as images: most slices of an object, 0 for all")
    add("--axis", type=int, choices=(0, 1, 2), help="slice axis of volumes, 2 by default")
    add("--limit", type=_whole(0), help="most images, 0 (default) for all")
    add("--objects", type=_whole(0), help="most objects in an image, 0 (default) for all")
    add("--device", help="auto, cpu, cuda or cuda:N")
    add("--image-size", type=_image_size, help="side of the networks' input in pixels")
    add("--tolerance-mm", type=_number(0.0), help="of NSD; a preset's by default, else 2")
    add("--seed", type=_whole(0), help="of every random choice, 0 by default")
    add("--batch", type=_whole(1), help="objects that are followed at once; changes memory, no result")
    add("--instances", metavar="CLASS", help="labels number the objects of this one class")
    return parser


def _refuse(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} must be {allowed}")


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        allowed = f"a whole number, {least} or more"
        try:
            value = int(text)
        except ValueError:
            raise _refuse(text, allowed) from None
        if value < least:
            raise _refuse(text, allowed)
        return value

    return parse


def _number(least: float, most: float = math.inf) -> Callable[[str], float]:
    allowed = f"a number from {least:g} to {most:g}" if most < math.inf else f"a number, {least:g} or more"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise _refuse(text, allowed) from None
        if not least <= value <= most or math.isinf(value):
            raise _refuse(text, allowed)
        return value

    return parse


def _counts(most: int | None = None) -> Callable[[str], tuple[int, ...]]:
    allowed = "whole numbers from 1" + (f" to {most}" if most else "") + " with commas between, such as 1,3,5"

    def parse(text: str) -> tuple[int, ...]:
        try:
            values = sorted({int(part) for part in text.split(",")})
        except ValueError:
            raise _refuse(text, allowed) from None
        if values[0] < 1 or (most and values[-1] > most):
            raise _refuse(text, allowed)
        return tuple(values)

    return parse


def _image_size(text: str) -> int:
    low, high = IMAGE_SIZE_RANGE
    allowed = f"a multiple of {IMAGE_SIZE_STEP} from {low} to {high}"
    try:
        size = int(text)
    except ValueError:
        raise _refuse(text, allowed) from None
    if size % IMAGE_SIZE_STEP or not low <= size <= high:
        raise _refuse(text, allowed)
    return size
