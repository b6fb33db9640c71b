"""What a person may choose for a training: name, default, range; one error that names a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lib.errors import TrainingError

Preset = Literal["paper", "decoder", "video"]
Start = Literal["published", "base"]
_PRESETS: tuple[Preset, ...] = get_args(Preset)
_STARTS: tuple[Start, ...] = get_args(Start)


class TrainOptions(BaseModel):
    """The options of one training. Viewers show each as a field: scalars, and lists of strings.

    The recipe is that of BioSAM-2 (Yan et al. 2024, section 3.3) where it names a value: AdamW at 1e-4,
    batches of 8, Dice and cross-entropy weighted 1 and 1. It trains 200 epochs; here it is 50 with early
    stopping, because a network that is trained long on one target learns to ignore its prompts (SAM-Med2D,
    issue 25).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset = Field(
        "paper",
        description="paper: image encoder and mask decoder; decoder: the decoder alone, for CPUs; "
        "video: clips through the memory, which is trained too",
    )
    start_from: Start = Field("published", description="the weights in service, or those they came from")
    device: str = Field("", description="cpu, cuda or cuda:N; empty for the app's own")
    image_size: int = Field(0, ge=0, le=2048, multiple_of=32, description="0 for that of the weights")
    max_epochs: int = Field(50, ge=1, le=10_000)
    max_minutes: float = Field(0.0, ge=0, description="0 for no limit")
    early_stop_patience: int = Field(10, ge=0, description="epochs without a better result, 0 to go on")
    batch_size: int = Field(8, ge=1, le=256, description="frames a step; clips for the video preset")
    accumulation: int = Field(
        1, ge=1, le=256, description="parts that a batch is computed in, one after the other, to save memory"
    )
    objects_per_frame: int = Field(3, ge=1, le=16)
    steps_per_epoch: int = Field(0, ge=0, description="0 for all labelled frames once, at most 200 steps")
    learning_rate: float = Field(1e-4, gt=0, le=10)
    layer_decay: float = Field(0.9, gt=0, le=1, description="of the rate, for each layer of the encoder down")
    weight_decay: float = Field(0.01, ge=0, le=1)
    warmup_steps: int = Field(50, ge=0)
    dice_weight: float = Field(1.0, ge=0, description="alpha of equation 4")
    bce_weight: float = Field(1.0, ge=0, description="beta of equation 4")
    occlusion_weight: float = Field(1.0, ge=0)
    iou_weight: float = Field(1.0, ge=0)
    empty_frames: float = Field(0.05, ge=0, le=0.5, description="share of frames without the object")
    clip_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of the steps that follow objects through the memory, so that propagation keeps "
        "up with the decoder; the video preset takes nothing else, the paper's images nothing of it",
    )
    clip_frames: int = Field(4, ge=2, le=16, description="frames of a clip")
    val_split: float = Field(0.2, gt=0, lt=1, description="share of the images that only measure")
    val_objects: int = Field(48, ge=1, le=10_000, description="objects that are measured each epoch")
    min_gain: float = Field(
        0.005, ge=0, le=1, description="Dice above the weights in service to be published"
    )
    seed: int = Field(0, ge=0)
    multi_gpu: bool = Field(True, description="all GPUs, one process for each")

    @property
    def limit_s(self) -> float:
        """Seconds that the training may take."""
        return self.max_minutes * 60 if self.max_minutes else float("inf")


# Keys that MONAI Label and its clients put beside the options.
_NOT_OPTIONS = frozenset({"model", "client_id", "local_rank", "gpus", "run_id", "name"})


def viewer_config(devices: list[str], preset: Preset) -> dict[str, Any]:
    """The options as viewers show them: the first of a list of strings is its default.

    Args:
        devices: names that a request may give, best first.
        preset: what suits the device.
    """
    defaults: dict[str, Any] = TrainOptions().model_dump()
    return {
        **defaults,
        "preset": _default_first(_PRESETS, preset),
        "start_from": list(_STARTS),
        "device": devices,
    }


def read_options(request: Mapping[str, Any], defaults: Mapping[str, Any]) -> TrainOptions:
    """The options of a request, over those of ``viewer_config``.

    A viewer sends what was changed, or everything; a list stands for its first entry.

    Raises:
        TrainingError: naming every option that is unknown or out of range, and what is allowed.
    """
    merged = {**defaults, **{name: value for name, value in request.items() if not _is_foreign(name, value)}}
    chosen = {
        name: value[0] if isinstance(value, list) and value else value
        for name, value in merged.items()
        if value is not None
    }
    try:
        return TrainOptions.model_validate(chosen)
    except ValidationError as error:
        raise TrainingError("; ".join(_complaint(item) for item in error.errors())) from None


def _is_foreign(name: str, value: Any) -> bool:
    """Whether an entry of a request is no option: MONAI Label also leaves the table of each trainer in it."""
    return name in _NOT_OPTIONS or (isinstance(value, dict) and name not in TrainOptions.model_fields)


def _default_first(choices: tuple[str, ...], default: str) -> list[str]:
    return [default, *(choice for choice in choices if choice != default)]


def _complaint(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{name} is no option of this training; there are {', '.join(TrainOptions.model_fields)}"
    return f"{name} is {item['input']!r}: {item['msg']}"
