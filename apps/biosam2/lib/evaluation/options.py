"""Options of the evaluation commands: pydantic models, read from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from lib.engine.download import MODEL_DIR
from lib.engine.registry import BUNDLED
from lib.errors import EvaluationError
from lib.settings import IMAGE_SIZE_RANGE, IMAGE_SIZE_STEP, STRATEGIES, StrategyName

PipelineName = Literal["image", "volume", "video"]
SliceRule = Literal["middle", "largest"]

PIPELINES: tuple[PipelineName, ...] = get_args(PipelineName)
# Yan et al. 2024, Tables 2 to 4.
PAPER_CLICKS = (1, 3, 5)
PAPER_FRAMES = (1, 2, 4, 6, 8)
# The paper does not state its tolerance. U-Mamba, whose splits it uses, allows 2 pixels for endoscopy and
# 2 mm for small organs; presets have the rest.
DEFAULT_TOLERANCE_MM = 2.0
# One slice represents an organ poorly; all of them hardly better than eight.
DEFAULT_SLICES = 8
# More objects per pass only save decoding frames that left the embedding cache.
DEFAULT_BATCH = 8
MOST_CLICKS = 100


def option(default: Any, allowed: str, description: str, *, decides: bool = False, **constraints: Any) -> Any:
    """A field of an option model.

    Args:
        default: Default value; ``...`` for a required option.
        allowed: Allowed values in words, for error messages.
        description: Help text.
        decides: Whether the option changes the value of a result, and not only how many there are.
        **constraints: pydantic constraints.
    """
    extra: Any = {"allowed": allowed, "decides": decides}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def _counts(value: Any) -> Any:
    """Text with commas as ascending distinct numbers."""
    return sorted(set(map(int, value.split(",")))) if isinstance(value, str) else value


def _existing_folder(path: Path) -> Path:
    if not path.is_dir():
        raise EvaluationError(f"--data {path} is not a folder: name the folder with the images")
    return path


def _not_a_file(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise EvaluationError(f"--output {path} is a file: name a folder; a missing one is created")
    return path


DataFolder = Annotated[Path, AfterValidator(_existing_folder)]
OutputFolder = Annotated[Path, AfterValidator(_not_a_file)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_counts)]
ClickCounts = Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_CLICKS)], ...], BeforeValidator(_counts)]


class CommandOptions(BaseModel):
    """Options that all evaluation commands share. Each field is one ``--option``."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    data: DataFolder = option(..., "a folder", "folder of the images")
    output: OutputFolder = option(..., "a folder", "folder of the results")
    model_dir: Path = option(MODEL_DIR, "a folder", "folder with registry.yaml and the published versions")
    device: str = option("auto", "auto, cpu, cuda or cuda:N", "device of the network")
    image_size: int | None = option(
        None,
        f"a multiple of {IMAGE_SIZE_STEP} from {IMAGE_SIZE_RANGE[0]} to {IMAGE_SIZE_RANGE[1]}",
        "side of the network's input in pixels; default: chosen by the weights",
        ge=IMAGE_SIZE_RANGE[0],
        le=IMAGE_SIZE_RANGE[1],
        multiple_of=IMAGE_SIZE_STEP,
    )

    def deciding(self) -> dict[str, Any]:
        """The options that change the value of a result, as JSON values."""
        return self.model_dump(
            mode="json",
            include={name for name, field in type(self).model_fields.items() if _extra(field)["decides"]},
        )


class EvaluationOptions(CommandOptions):
    """Options of ``python -m lib.evaluation``."""

    pipeline: PipelineName | Literal["all"] = option(
        "all", "one of " + ", ".join((*PIPELINES, "all")), "pipeline; all selects by the kind of image"
    )
    output: OutputFolder = option(
        Path("outputs/evaluation"), "a folder", "folder of the results; the same folder again resumes"
    )
    preset: str | None = option(None, "a preset", "public dataset in the layout of presets.yaml")
    weights: tuple[str, ...] = option(
        (BUNDLED,), "names or files", "registry names, files or published versions; several are compared"
    )
    clicks: ClickCounts = option(
        PAPER_CLICKS,
        f"whole numbers from 1 to {MOST_CLICKS} with commas between, such as 1,3,5",
        "numbers of clicks",
    )
    frames: Counts = option(
        PAPER_FRAMES,
        "whole numbers from 1 with commas between, such as 1,3,5",
        "numbers of prompted frames in a video",
    )
    box: bool = option(False, "a flag", "prompt images with a box too")
    jitter: float = option(
        0.0,
        "a number from 0 to 1",
        "deviation of each box border as a share of the box's side; 0: tight boxes, 0.1: drawn by hand",
        decides=True,
        ge=0,
        le=1,
    )
    slice: SliceRule = option(
        "middle", "one of " + ", ".join(get_args(SliceRule)), "slice of a volume's box", decides=True
    )
    slices: int = option(
        DEFAULT_SLICES,
        "a whole number, 0 or more",
        "most slices per object when a volume is evaluated as images; 0: all",
        decides=True,
        ge=0,
    )
    axis: int = option(2, "0, 1 or 2", "slice axis of volumes", decides=True, ge=0, le=2)
    limit: int = option(0, "a whole number, 0 or more", "most images; 0: all", ge=0)
    objects: int = option(
        0, "a whole number, 0 or more", "most objects per image, chosen at random; 0: all", decides=True, ge=0
    )
    tolerance_mm: float | None = option(
        None,
        "a number, 0 or more",
        "tolerance of NSD; default: the preset's, else 2",
        ge=0,
        allow_inf_nan=False,
    )
    seed: int = option(0, "a whole number, 0 or more", "seed of every random choice", decides=True, ge=0)
    batch: int = option(
        DEFAULT_BATCH, "a whole number, 1 or more", "objects propagated at once; changes no result", ge=1
    )
    instances: str | None = option(
        None, "a class name", "labels number the objects of this one class", decides=True
    )


Command = TypeVar("Command", bound=CommandOptions)


def parse_options(arguments: Sequence[str], presets: Sequence[str]) -> EvaluationOptions:
    """Reads the command line of ``python -m lib.evaluation``.

    Raises:
        EvaluationError: an option is invalid, with its value and the allowed values.
    """
    about = f"Measure weights as the BioSAM-2 paper does. Presets: {', '.join(presets)}."
    options = parse(EvaluationOptions, arguments, "python -m lib.evaluation", about, "pipeline")
    if options.preset not in (None, *presets):
        raise EvaluationError(f"Unknown --preset {options.preset!r} (available: {', '.join(presets)})")
    return options


def parse(
    model: type[Command], arguments: Sequence[str], program: str, about: str, positional: str = ""
) -> Command:
    """Reads a command line into an option model.

    Args:
        model: Option model; each field is one ``--option``.
        arguments: Arguments without the program's name.
        program: Program name in the help.
        about: Description in the help.
        positional: Field that is given without ``--``.

    Raises:
        EvaluationError: an option is unknown, missing or invalid.
    """
    parser = _Parser(prog=program, description=about)
    for name, field in model.model_fields.items():
        _add_argument(parser, name, field, positional)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        allowed = _extra(model.model_fields[name])["allowed"]
        raise EvaluationError(f"--{_dashed(name)}: {given[name]!r} must be {allowed}") from None


class _Parser(argparse.ArgumentParser):
    """Raises errors instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise EvaluationError(f"{message}; --help lists every option")


def _add_argument(parser: argparse.ArgumentParser, name: str, field: FieldInfo, positional: str) -> None:
    default = "" if field.is_required() or field.default is None else f" (default: {_shown(field.default)})"
    text = f"{field.description}: {_extra(field)['allowed']}{default}".replace("%", "%%")
    flag = name if name == positional else f"--{_dashed(name)}"
    if field.annotation is bool:
        parser.add_argument(flag, action="store_true", default=None, help=text)
    elif name == positional:
        parser.add_argument(flag, nargs="?", help=text)
    else:
        several = name == "weights" and isinstance(field.default, tuple)
        parser.add_argument(flag, required=field.is_required(), nargs="+" if several else None, help=text)


def _extra(field: FieldInfo) -> Any:
    return field.json_schema_extra


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _shown(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


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

    Raises:
        EvaluationError: an option is invalid, with its value and the allowed values.
    """
    about = "Simulate annotation on a labelled datastore, and compare what to label next."
    return parse(SimulationOptions, arguments, "python -m lib.evaluation active-learning", about)
