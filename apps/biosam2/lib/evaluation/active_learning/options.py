"""Options of simulated annotation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator

from lib.engine.registry import BUNDLED
from lib.evaluation.options import CommandOptions, OutputFolder, option, parse
from lib.settings import STRATEGIES, StrategyName

Unit = Literal["image", "slice"]
CONTROL = "random"
DEFAULT_TEST = "0.3"

_POSITIVE = "a whole number, 1 or more"


def _names(value: Any) -> Any:
    """Text with commas as names."""
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _with_control(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([CONTROL, *names]))


class SimulationOptions(CommandOptions):
    """Options of ``python -m lib.evaluation active-learning``."""

    output: OutputFolder = option(
        Path("outputs/active-learning"), "a folder", "folder of the results; the same folder again resumes"
    )
    strategies: Annotated[
        tuple[StrategyName, ...], BeforeValidator(_names), AfterValidator(_with_control)
    ] = option(
        (CONTROL, "hybrid"),
        f"names of {', '.join(STRATEGIES)} with commas between",
        f"compared strategies; the control {CONTROL} is always one of them",
    )
    seeds: int = option(10, _POSITIVE, "simulations per strategy", ge=1)
    start: int = option(2, _POSITIVE, "labels before the first training", decides=True, ge=1)
    step: int = option(2, _POSITIVE, "labels between two trainings", decides=True, ge=1)
    rounds: int = option(6, _POSITIVE, "trainings after the first", ge=1)
    unit: Unit = option(
        "image", "one of " + ", ".join(get_args(Unit)), "what is labelled at a time", decides=True
    )
    test: str = option(
        DEFAULT_TEST,
        "a share between 0 and 1, or a pattern such as test*",
        "images of the test set: a share of them, or a pattern of their names",
        decides=True,
    )
    objects: int = option(24, _POSITIVE, "most test objects", decides=True, ge=1)
    steps: int = option(40, _POSITIVE, "steps per training", decides=True, ge=1)
    batch: int = option(4, _POSITIVE, "frames per step", decides=True, ge=1)
    learning_rate: float = option(
        5e-4, "a number from 1e-08 to 1", "learning rate of the first step", decides=True, ge=1e-8, le=1
    )
    weights: str = option(BUNDLED, "a name or file", "weights at the start of every training")


def parse_simulation_options(arguments: Sequence[str]) -> SimulationOptions:
    """Reads the command line.

    Args:
        arguments: Arguments after ``active-learning``.

    Raises:
        EvaluationError: an option is invalid, with its value and the allowed values.
    """
    about = "Simulate annotation on a labelled datastore, and compare what to label next."
    return parse(SimulationOptions, arguments, "python -m lib.evaluation active-learning", about)
