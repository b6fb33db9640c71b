"""What a simulated annotation was asked to do: every option, checked once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lib.activelearning.registry import SELECTORS
from lib.engine.download import MODEL_DIR
from lib.engine.registry import BUNDLED
from lib.errors import EvaluationError
from lib.evaluation.options import _image_size, _number, _Parser, _whole

Unit = Literal["image", "slice"]
CONTROL = "random"
DEFAULT_TEST = "0.3"


@dataclass(frozen=True)
class CurveOptions:
    """The options of one simulation.

    Attributes:
        data: folder of a datastore, all of whose images have final labels.
        output: folder for the results; a second run with the same goes on where the first stopped.
        strategies: to compare; ``random``, the control, is always among them.
        seeds: how often the annotation is simulated with each strategy.
        start: labels before the first training.
        step: labels between two trainings.
        rounds: how often ``step`` more are labelled.
        unit: what is labelled at a time: an image, or a slice of a volume.
        test: which images only measure: a share of them, or a pattern of their names such as ``test*``.
        objects: most objects that are measured.
        steps: of each training.
        batch: frames of a step.
        learning_rate: of the first step.
        weights: registry name, path or published version that every training begins with.
        model_dir: folder of ``registry.yaml``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        image_size: side of the network's input in pixels; None: what suits the weights.
    """

    data: Path
    output: Path = Path("outputs/active-learning")
    strategies: tuple[str, ...] = (CONTROL, "hybrid")
    seeds: int = 10
    start: int = 2
    step: int = 2
    rounds: int = 6
    unit: Unit = "image"
    test: str = DEFAULT_TEST
    objects: int = 24
    steps: int = 40
    batch: int = 4
    learning_rate: float = 5e-4
    weights: str = BUNDLED
    model_dir: Path = MODEL_DIR
    device: str = "auto"
    image_size: int | None = None

    def deciding(self) -> dict[str, Any]:
        """The options that change the value of a row, and not only which rows there are."""
        return {
            "start": self.start,
            "step": self.step,
            "unit": self.unit,
            "test": self.test,
            "objects": self.objects,
            "steps": self.steps,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
        }


def parse_curve_options(arguments: Sequence[str]) -> CurveOptions:
    """Reads a command line.

    Args:
        arguments: those behind ``active-learning``.

    Raises:
        EvaluationError: naming the option, its value and what is allowed.
    """
    given = vars(_parser().parse_args(arguments))
    options = CurveOptions(**{name: value for name, value in given.items() if value is not None})
    if not options.data.is_dir():
        raise EvaluationError(f"--data {options.data} is no folder: name the folder that holds the images")
    if options.output.exists() and not options.output.is_dir():
        raise EvaluationError(f"--output {options.output} is a file: name a folder, or one to be made")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m lib.evaluation active-learning",
        description="Simulate annotation on a labelled datastore, and compare what to label next.",
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a datastore with labels/final for all images")
    add("--output", type=Path, help="the same folder again: it goes on")
    add("--strategies", type=_strategies, help=f"of {','.join(SELECTORS)}; {CONTROL} is always among them")
    add("--seeds", type=_whole(1), help="simulations of each strategy, 10 by default")
    add("--start", type=_whole(1), help="labels before the first training, 2 by default")
    add("--step", type=_whole(1), help="labels between trainings, 2 by default")
    add("--rounds", type=_whole(1), help="how often more are labelled, 6 by default")
    add("--unit", choices=get_args(Unit), help="what is labelled at a time, image by default")
    add("--test", help=f"images that only measure: a share ({DEFAULT_TEST}) or a pattern of names: 'test*'")
    add("--objects", type=_whole(1), help="most objects that are measured, 24 by default")
    add("--steps", type=_whole(1), help="of each training, 40 by default")
    add("--batch", type=_whole(1), help="frames of a step, 4 by default")
    add("--learning-rate", type=_number(1e-8, 1.0), help="5e-4 by default: few steps have to do")
    add("--weights", help="that every training begins with")
    add("--model-dir", type=Path, help="the folder with registry.yaml")
    add("--device", help="auto, cpu, cuda or cuda:N")
    add("--image-size", type=_image_size, help="side of the network's input in pixels")
    return parser


def _strategies(text: str) -> tuple[str, ...]:
    names = [CONTROL, *(name.strip() for name in text.split(",") if name.strip())]
    unknown = [name for name in names if name not in SELECTORS]
    if unknown:
        allowed = ", ".join(SELECTORS)
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is none of {allowed}")
    return tuple(dict.fromkeys(names))
