"""Configuration of a training: options of the request, and the complete plan for the training process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field

from lib.engine.checkpoints import Weights
from lib.errors import TrainingError
from lib.settings import Precision, read_task_options
from lib.trainers.frames import LabelledImage

Preset = Literal["paper", "decoder", "video", "auto_head"]
Start = Literal["published", "base"]
_PRESETS: tuple[Preset, ...] = get_args(Preset)
_STARTS: tuple[Start, ...] = get_args(Start)

TRAINING_FOLDER = "training"
# Keys that MONAI Label and its clients add to the options.
_NOT_OPTIONS = frozenset({"model", "client_id", "local_rank", "gpus", "run_id", "name"})
# Options without influence on the learned weights: an interrupted training resumes after a change of them.
_NOT_IDENTITY = frozenset(
    {
        "max_epochs",
        "max_minutes",
        "early_stop_patience",
        "device",
        "multi_gpu",
        "min_gain",
        "start_from",
        "accumulation",
    }
)


class TrainOptions(BaseModel):
    """Options of one training. Viewers show each as a field: scalars, and lists of strings.

    The recipe is that of BioSAM-2 (Yan et al. 2024, section 3.3) as far as it states values: AdamW at 1e-4,
    batches of 8, Dice and cross-entropy weighted 1 and 1. It trains 200 epochs; the default here is 50 with
    early stopping, since a network trained long on one target ignores its prompts (SAM-Med2D, issue 25).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset = Field(
        "paper",
        description="paper: image encoder and mask decoder; decoder: mask decoder only, for CPUs; "
        "video: clips through the memory, which is trained as well; auto_head: a small head for each label, "
        "which needs no prompt",
    )
    start_from: Start = Field("published", description="weights in service, or the base they came from")
    device: str = Field("", description="cpu, cuda or cuda:N; empty for the app's device")
    image_size: int = Field(0, ge=0, le=2048, multiple_of=32, description="0: image size of the weights")
    max_epochs: int = Field(50, ge=1, le=10_000)
    max_minutes: float = Field(0.0, ge=0, description="0: no limit")
    early_stop_patience: int = Field(10, ge=0, description="epochs without a better result, 0: no early stop")
    batch_size: int = Field(8, ge=1, le=256, description="frames per step; clips for the video preset")
    accumulation: int = Field(
        1, ge=1, le=256, description="parts of a batch computed one after the other, to save memory"
    )
    objects_per_frame: int = Field(3, ge=1, le=16)
    steps_per_epoch: int = Field(0, ge=0, description="0: all labelled frames once, at most 200 steps")
    learning_rate: float = Field(1e-4, gt=0, le=10)
    layer_decay: float = Field(
        0.9, gt=0, le=1, description="factor of the learning rate for each encoder layer downwards"
    )
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
        description="share of steps that track objects through the memory, so that propagation keeps up with "
        "the decoder; ignored by the video preset, which uses clips only",
    )
    clip_frames: int = Field(4, ge=2, le=16, description="frames of a clip")
    val_split: float = Field(0.2, gt=0, lt=1, description="share of held-out images")
    val_objects: int = Field(48, ge=1, le=10_000, description="objects measured after each epoch")
    min_gain: float = Field(0.005, ge=0, le=1, description="least gain in Dice over the weights in service")
    seed: int = Field(0, ge=0)
    multi_gpu: bool = Field(True, description="all GPUs, one process each")

    @property
    def limit_s(self) -> float:
        """Time limit in seconds."""
        return self.max_minutes * 60 if self.max_minutes else float("inf")

    @property
    def is_encoder_frozen(self) -> bool:
        """Whether the preset leaves the image encoder unchanged, so that embeddings can be cached."""
        return self.preset == "decoder"


def viewer_config(devices: list[str], preset: Preset) -> dict[str, Any]:
    """Options for viewers, which take the first entry of a list as its default; best device first."""
    return {
        **TrainOptions().model_dump(),
        "preset": [preset, *(choice for choice in _PRESETS if choice != preset)],
        "start_from": list(_STARTS),
        "device": devices,
    }


def read_options(request: Mapping[str, Any], defaults: Mapping[str, Any]) -> TrainOptions:
    """Options of a request; missing ones come from ``viewer_config``.

    Viewers send changed options, or all of them; of a list the first entry is used.
    """
    # MONAI Label also leaves the table of each trainer in a request.
    tables = {name for name, value in request.items() if isinstance(value, dict)}
    foreign = _NOT_OPTIONS | (tables - set(TrainOptions.model_fields))
    given = {name: value for name, value in request.items() if name not in foreign}
    return read_task_options(TrainOptions, {**defaults, **given}, TrainingError)


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that a training process needs; can be pickled.

    Attributes:
        options: Options of the request.
        images: Labelled images.
        weights: Start weights with their configuration.
        service: Weights in service, which the result has to beat.
        published: Name of the version in service at planning; None for the base.
        model_dir: Folder of the registry and the versions.
        device: Device name.
        precision: Number format (``--conf precision``).
        max_voxels: Limit of voxels in an image.
        embedding_cache_mb: Memory for cached embeddings in MiB.
        started: Time before listing the images, in seconds since 1970; labels saved later are new.
        convert_for: Number format in which a CPU server runs OpenVINO; None where it does not.
    """

    options: TrainOptions
    images: tuple[LabelledImage, ...]
    weights: Weights
    service: Weights
    published: str | None
    model_dir: Path
    device: str
    precision: Precision
    max_voxels: int
    embedding_cache_mb: int
    started: float
    convert_for: torch.dtype | None = None

    @property
    def folder(self) -> Path:
        """Folder of the files of a running training and of the report of the last one."""
        return self.model_dir / TRAINING_FOLDER

    @property
    def frames_folder(self) -> Path:
        """Folder of the prepared frames."""
        return self.folder / "frames"

    @property
    def split_record(self) -> Path:
        """File with the side of every image that ever took part."""
        return self.folder / "split.json"

    @property
    def state_path(self) -> Path:
        """Checkpoint from which an interrupted training resumes."""
        return self.folder / "state.pt"

    def fingerprint(self, images: list[str]) -> str:
        """Equal for trainings that can resume each other's state."""
        options = self.options.model_dump(exclude=set(_NOT_IDENTITY))
        parts = [json.dumps(options, sort_keys=True), str(self.weights.sha256), *sorted(images)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
