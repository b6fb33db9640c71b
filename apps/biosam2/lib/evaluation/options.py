"""Options of the evaluation commands: pydantic models, read from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lib.engine.download import MODEL_DIR
from lib.engine.registry import BUNDLED
from lib.errors import EvaluationError
from lib.settings import IMAGE_SIZE_RANGE, IMAGE_SIZE_STEP, STRATEGIES, StrategyName

PipelineName = Literal["image", "volume", "video"]
SliceRule = Literal["middle", "largest"]
Unit = Literal["image", "slice"]

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
# Strategy that every other one is compared with.
CONTROL: StrategyName = "random"
DEFAULT_TEST = "0.3"


def _counts(value: Any) -> Any:
    """Text with commas as ascending distinct numbers."""
    try:
        return sorted(set(map(int, value.split(",")))) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("whole numbers with commas between are needed, such as 1,3,5") from None


def _names(value: Any) -> Any:
    """Text with commas as names."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _existing_folder(path: Path) -> Path:
    if not path.is_dir():
        raise EvaluationError(f"--data {path} is not a folder: name the folder with the images")
    return path


def _not_a_file(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise EvaluationError(f"--output {path} is a file: name a folder; a missing one is created")
    return path


OutputFolder = Annotated[Path, AfterValidator(_not_a_file)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Strategies = Annotated[
    tuple[StrategyName, ...],
    BeforeValidator(_names),
    AfterValidator(lambda names: tuple(dict.fromkeys([CONTROL, *names]))),
]
Side = Annotated[int, Field(ge=IMAGE_SIZE_RANGE[0], le=IMAGE_SIZE_RANGE[1], multiple_of=IMAGE_SIZE_STEP)]


class CommandOptions(BaseModel):
    """Options that all evaluation commands share. Each field is one ``--option``.

    Attributes:
        DECIDING: Options that change the value of a result, and not only the number of results.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    DECIDING: ClassVar[frozenset[str]] = frozenset()

    data: Annotated[Path, AfterValidator(_existing_folder)] = Field(description="folder of the images")
    output: OutputFolder = Field(description="folder of the results; the same folder again resumes")
    model_dir: Path = Field(MODEL_DIR, description="folder with registry.yaml and the published versions")
    device: str = Field("auto", description="device of the network: auto, cpu, cuda or cuda:N")
    image_size: Side | None = Field(
        None, description="side of the network's input in pixels; default: chosen by the weights"
    )

    def deciding(self) -> dict[str, Any]:
        """The options that change the value of a result, as JSON values."""
        return self.model_dump(mode="json", include=set(self.DECIDING))


class EvaluationOptions(CommandOptions):
    """Options of ``python -m lib.evaluation``."""

    DECIDING = frozenset({"jitter", "slice", "slices", "axis", "objects", "seed", "instances"})

    pipeline: Literal["image", "volume", "video", "all"] = Field(
        "all", description="image, volume, video, or all: selected by the kind of image"
    )
    output: OutputFolder = Field(
        Path("outputs/evaluation"), description=CommandOptions.model_fields["output"].description
    )
    preset: str | None = Field(None, description="public dataset in the layout of presets.yaml")
    weights: tuple[str, ...] = Field(
        (BUNDLED,), description="registry names, files or published versions; several are compared"
    )
    clicks: Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_CLICKS)], ...], BeforeValidator(_counts)] = (
        Field(PAPER_CLICKS, description="numbers of clicks")
    )
    frames: Annotated[tuple[Positive, ...], BeforeValidator(_counts)] = Field(
        PAPER_FRAMES, description="numbers of prompted frames in a video"
    )
    box: bool = Field(False, description="prompt images with a box too")
    jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="deviation of box borders as a share of the side; 0: tight boxes, 0.1: drawn by hand",
    )
    slice: SliceRule = Field("middle", description="slice of a volume's box: middle or largest")
    slices: Natural = Field(
        DEFAULT_SLICES, description="most slices per object when a volume is evaluated as images; 0: all"
    )
    axis: int = Field(2, ge=0, le=2, description="slice axis of volumes: 0, 1 or 2")
    limit: Natural = Field(0, description="most images; 0: all")
    objects: Natural = Field(0, description="most objects per image, chosen at random; 0: all")
    tolerance_mm: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="tolerance of NSD; default: the preset's, else 2"
    )
    seed: Natural = Field(0, description="seed of every random choice")
    batch: Positive = Field(DEFAULT_BATCH, description="objects propagated at once; changes no result")
    instances: str | None = Field(None, description="name of the one class whose objects the labels number")


class SimulationOptions(CommandOptions):
    """Options of ``python -m lib.evaluation active-learning``."""

    DECIDING = frozenset({"start", "step", "unit", "test", "objects", "steps", "batch", "learning_rate"})

    output: OutputFolder = Field(
        Path("outputs/active-learning"), description=CommandOptions.model_fields["output"].description
    )
    strategies: Strategies = Field(
        (CONTROL, "hybrid"),
        description=f"compared strategies with commas between: {', '.join(STRATEGIES)}",
    )
    seeds: Positive = Field(10, description="simulations per strategy")
    start: Positive = Field(2, description="labels before the first training")
    step: Positive = Field(2, description="labels between two trainings")
    rounds: Positive = Field(6, description="trainings after the first")
    unit: Unit = Field("image", description="what is labelled at a time: image or slice")
    test: str = Field(
        DEFAULT_TEST, description="test set: a share of the images, or a pattern of their names such as test*"
    )
    objects: Positive = Field(24, description="most test objects")
    steps: Positive = Field(40, description="steps per training")
    batch: Positive = Field(4, description="frames per step")
    learning_rate: float = Field(5e-4, ge=1e-8, le=1, description="learning rate of the first step")
    weights: str = Field(BUNDLED, description="name or file of the weights at the start of every training")


Command = TypeVar("Command", bound=CommandOptions)


def parse_options(arguments: Sequence[str], presets: Sequence[str]) -> EvaluationOptions:
    """Reads the command line of ``python -m lib.evaluation``.

    Raises:
        EvaluationError: an option is invalid, with its value and the allowed values.
    """
    about = f"Measure weights as the BioSAM-2 paper does. Presets: {', '.join(presets)}."
    options = _parse(EvaluationOptions, arguments, "python -m lib.evaluation", about, "pipeline")
    if options.preset not in (None, *presets):
        raise EvaluationError(f"Unknown --preset {options.preset!r} (available: {', '.join(presets)})")
    return options


def parse_simulation_options(arguments: Sequence[str]) -> SimulationOptions:
    """Reads the command line of ``python -m lib.evaluation active-learning``, as ``parse_options``."""
    about = "Simulate annotation on a labelled datastore, and compare what to label next."
    return _parse(SimulationOptions, arguments, "python -m lib.evaluation active-learning", about)


class _Parser(argparse.ArgumentParser):
    """Raises errors instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise EvaluationError(f"{message}; --help lists every option")


def _parse(
    model: type[Command], arguments: Sequence[str], program: str, about: str, positional: str = ""
) -> Command:
    """Reads a command line; the field ``positional`` is given without ``--``."""
    parser = _Parser(prog=program, description=about)
    flags = {name: f"--{name.replace('_', '-')}" for name in model.model_fields} | {positional: positional}
    for name, field in model.model_fields.items():
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        shown = "" if field.is_required() or default is None else f" (default: {default})"
        settings: dict[str, Any] = {"help": f"{field.description}{shown}".replace("%", "%%")}
        if field.annotation is bool:
            settings |= {"action": "store_true", "default": None}
        elif name == positional:
            settings["nargs"] = "?"
        else:
            several = isinstance(field.default, tuple) and name == "weights"
            settings |= {"required": field.is_required(), "nargs": "+" if several else None}
        parser.add_argument(flags[name], **settings)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise EvaluationError(f"{flags[name]} is {given[name]!r}: {first['msg']}") from None
