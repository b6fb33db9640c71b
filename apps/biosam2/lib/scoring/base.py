"""Base of the app's scoring methods: MONAI Label's interface, checked options, progress, infos of images."""

from __future__ import annotations

import json
import logging
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from pydantic import BaseModel, ConfigDict, Field

from lib.child_process import lower_priority
from lib.datastores.label_entries import LabelEntry, labelled, stamp
from lib.datastores.local import folder_of
from lib.engine.checkpoints import Weights
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.engine.runtime import resolve_device
from lib.errors import BioSam2Error, EvaluationError
from lib.files import alone
from lib.scoring.background import is_worker_process
from lib.scoring.store import scores_folder
from lib.settings import Settings, read_task_options

logger = logging.getLogger(__name__)


def scores_of(datastore: Datastore, model_dir: Path) -> Path:
    """Folder of a datastore's scores."""
    return scores_folder(model_dir, folder_of(datastore))


def weights_key(weights: Weights, predictor: Predictor) -> str:
    """Identifies weights by content, input size and precision."""
    content = weights.sha256[:16] if weights.sha256 else stamp(weights.path)
    precision = str(predictor.runtime.dtype).removeprefix("torch.")
    return f"{weights.name} {content} at {predictor.image_size} px {precision}"


def read_info(datastore: Datastore, image_id: str) -> Mapping[str, Any]:
    """Info of an image; empty if the datastore has none."""
    try:
        return dict(datastore.get_image_info(image_id) or {})
    except (ImageNotFoundException, NotImplementedError):
        return {}


def write_info(datastore: Datastore, image_id: str, facts: Mapping[str, Any]) -> bool:
    """Writes facts, plain JSON without NaN, into the info of an image; whether anything was written.

    Nothing is written for a removed image, facts that are there already, and a datastore without infos.
    """
    plain = json.loads(json.dumps(dict(facts), allow_nan=False))
    present = read_info(datastore, image_id)
    if all(name in present and present[name] == value for name, value in plain.items()):
        return False
    try:
        datastore.update_image_info(image_id, plain)
    except (ImageNotFoundException, NotImplementedError) as error:
        logger.info("Info of %s not written: %s", image_id, error)
        return False
    return True


# Memory for embeddings in the scoring process: each slice is visited once, and its embedding is reused only
# for the boxes around its objects.
_EMBEDDINGS_MB = 128
# Share of the cores used for scoring; clicks use as many as torch takes.
_SHARE_OF_CORES = 4
# Keys that MONAI Label and its clients add to the options.
_NOT_OPTIONS = frozenset({"method", "client_id", "gpus", "multi_gpu", "model"})
_LOCK_FILE = "lock"
# Errors of a single image: unreadable, too large for the memory, or with non-finite network outputs.
UNUSABLE = (BioSam2Error, ValueError, MemoryError, torch.OutOfMemoryError)

Facts = Mapping[str, Any]


class ScoringOptions(BaseModel):
    """Options of every scoring method."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field("", description="cpu, cuda or cuda:N; empty for the app's device")
    max_minutes: float = Field(0.0, ge=0, description="time after which no further image begins, 0: no limit")
    again: bool = Field(False, description="whether to score unchanged images again")

    @property
    def limit_s(self) -> float:
        """Time limit in seconds."""
        return self.max_minutes * 60 if self.max_minutes else float("inf")


T = TypeVar("T", bound=ScoringOptions)


class Scoring(ScoringMethod, Generic[T]):
    """A scoring method of the app."""

    def __init__(self, name: str, description: str, settings: Settings, pool: PredictorPool, kind: type[T]):
        super().__init__(description)
        self.name = name
        self._settings = settings
        self._pool = pool
        self._kind = kind

    def info(self) -> dict[str, Any]:
        """Description and default options for ``/info/``."""
        return {**super().info(), "config": self._kind().model_dump()}

    def options(self, request: Mapping[str, Any]) -> T:
        """Options of a request; of a list the first entry is used, as viewers show it.

        Raises:
            EvaluationError: Options are unknown or out of range; the message names all of them.
            DeviceError: The device does not exist.
        """
        given = {
            name: value
            for name, value in request.items()
            if name not in _NOT_OPTIONS and not isinstance(value, dict)
        }
        options = read_task_options(self._kind, given, EvaluationError)
        resolve_device(options.device)
        return options

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Scores the images. MONAI Label calls it in a process of its own and kills that to stop the scoring.

        Scores made until then are kept; the next call continues with the remaining images.

        Returns:
            Summary as plain JSON.
        """
        options, pool = self.options(request), self._pool
        if is_worker_process():
            lower_priority()
            torch.set_num_threads(self._settings.threads or max(1, (os.cpu_count() or 1) // _SHARE_OF_CORES))
            kept = min(_EMBEDDINGS_MB, self._settings.embedding_cache_mb)
            settings = self._settings.model_copy(update={"embedding_cache_mb": kept})
            pool = PredictorPool(settings, pool.registry.folder)
        with self.alone(datastore):
            return self.score(options, datastore, pool)

    def alone(self, datastore: Datastore) -> AbstractContextManager[None]:
        """Lets one process of all servers score at a time; what it has scored is unchanged for the next."""
        return alone(scores_of(datastore, self._pool.registry.folder) / _LOCK_FILE)

    @abstractmethod
    def score(self, options: T, datastore: Datastore, pool: PredictorPool) -> dict[str, Any]:
        """Scores the images of a datastore."""

    def visit_labelled(
        self,
        datastore: Datastore,
        progress: ScoringProgress,
        look: Callable[[str, LabelEntry], Facts | None],
        summarize: Callable[[Facts], str],
    ) -> list[str]:
        """Writes new facts about each final label into its image's info.

        ``look`` computes them, or None if the info is up to date; ``summarize`` formats them for the log.

        Returns:
            Ids of all labelled images, visited or not.
        """
        entries = dict(labelled(datastore))
        for number, image_id in enumerate(progress.over(entries)):
            try:
                told = look(image_id, entries[image_id])
            except UNUSABLE as error:
                progress.failure(image_id, error)
                continue
            if told is None:
                progress.unchanged += 1
                continue
            write_info(datastore, image_id, told)
            progress.scored(image_id, summarize(told), len(entries) - number - 1)
        return list(entries)


@dataclass
class ScoringProgress:
    """Counts of one run of a scoring method, for the log and the result.

    Attributes:
        name: Name of the method.
        limit_s: Time in seconds after which no further image begins.
        done: Number of images scored in this run.
        unchanged: Number of images with an up-to-date score.
        failed: Reasons by image id.
        left: Number of images left for the next call.
    """

    name: str
    limit_s: float
    done: int = 0
    unchanged: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    _started: float = field(default_factory=time.monotonic)

    def over(self, images: Iterable[str], most: int = 0) -> Iterator[str]:
        """Yields images until the time limit, or until ``most`` are scored (0: no limit)."""
        listed = list(images)
        for number, image in enumerate(listed):
            if self.seconds > self.limit_s or (most and self.done >= most):
                self.left = len(listed) - number
                logger.info("%s: %d images left for the next call", self.name, self.left)
                return
            yield image

    def scored(self, image: str, result: str, remaining: int) -> None:
        """Counts and logs a scored image."""
        self.done += 1
        pace = self.seconds / self.done
        text = "%s: %s: %s; %d scored, %.1f s each, at most %.0f min to go"
        logger.info(text, self.name, image, result, self.done, pace, remaining * pace / 60)

    def failure(self, image: str, error: Exception) -> None:
        """Records an image that cannot be scored."""
        self.failed[image] = str(error) or type(error).__name__
        logger.warning("%s: %s skipped: %s", self.name, image, error)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def summary(self) -> dict[str, Any]:
        """The counts as plain JSON."""
        found = {
            "scored": self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "left": self.left,
            "seconds": round(self.seconds, 1),
        }
        logger.info("%s: %s", self.name, found)
        return found
