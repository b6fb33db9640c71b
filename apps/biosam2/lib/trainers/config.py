"""Everything that a training process needs to know, in a form that can be sent to one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from lib.engine.checkpoints import Weights
from lib.settings import Precision
from lib.trainers.labelled_image import Case
from lib.trainers.options import TrainOptions

TRAINING_FOLDER = "training"
# Options that say how long, where and how it is judged, and not what is learned: a training that was cut off
# goes on under others.
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


@dataclass(frozen=True)
class TrainingPlan:
    """One training.

    Attributes:
        options: what a person chose.
        cases: the labelled images.
        weights: what it starts from, with their configuration.
        service: the weights in service, which it has to beat.
        published: name of the version in service when it was planned; None for the base.
        model_dir: the folder of the registry and the versions.
        device: name of the device.
        precision: of ``--conf precision``.
        max_voxels: largest image that is opened.
        embedding_cache_mb: memory for the embeddings that a frozen encoder makes, in MiB.
        started: seconds since 1970, from before the labelled images were listed: what is saved later is new.
    """

    options: TrainOptions
    cases: tuple[Case, ...]
    weights: Weights
    service: Weights
    published: str | None
    model_dir: Path
    device: str
    precision: Precision
    max_voxels: int
    embedding_cache_mb: int
    started: float

    @property
    def folder(self) -> Path:
        """Where a training keeps what it needs while it runs, and the report of the last one."""
        return self.model_dir / TRAINING_FOLDER

    @property
    def frames_folder(self) -> Path:
        """The frames of the labelled images, laid out for reading."""
        return self.folder / "frames"

    @property
    def split_record(self) -> Path:
        """The side of every image that ever took part."""
        return self.folder / "split.json"

    @property
    def state_path(self) -> Path:
        """What a training that was cut off goes on from."""
        return self.folder / "state.pt"

    def fingerprint(self, images: list[str]) -> str:
        """Equal for trainings of which one can go on where the other was cut off.

        Args:
            images: digests of the images that take part.
        """
        options = self.options.model_dump(exclude=set(_NOT_IDENTITY))
        parts = [json.dumps(options, sort_keys=True), str(self.weights.sha256), *sorted(images)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
