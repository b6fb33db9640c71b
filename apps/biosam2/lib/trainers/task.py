"""MONAI Label's train task ``biosam2``, and automatic training after new labels."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import background_executors, tasks

from lib.child_process import belongs_to_server, lower_priority
from lib.engine.builder import described
from lib.engine.checkpoints import Weights, named_weights
from lib.engine.predictor_pool import PredictorPool, openvino_dtype
from lib.engine.registry import DeviceType
from lib.engine.runtime import available_devices, resolve_device
from lib.errors import BioSam2Error, TrainingError
from lib.files import PROBED_S, is_locked, storage_errors, write_atomically
from lib.images.file_formats import split_ending
from lib.labels.values import listed_label_info
from lib.settings import Settings
from lib.trainers.config import TRAINING_FOLDER, TrainingPlan, TrainOptions, read_options, viewer_config
from lib.trainers.distributed import launch, processes, rank
from lib.trainers.frames import LabelledImage
from lib.trainers.progress import read_stats, started_at, stats_since
from lib.trainers.publishing import REPORT_FILE
from lib.trainers.training import train

logger = logging.getLogger(__name__)

# Key that MONAI Label adds to the request in its training process.
_WORKER_KEY = "local_rank"
# MONAI Label's queue of trainings: a pool of one thread, and its tasks.
_QUEUE = "train"
_LOCK_FILE = "lock"
# Its text is the time, in seconds since 1970, up to which a training has seen the labels, with any result.
_TRIED_FILE = "tried"
_ELSEWHERE = "another server trains on the same weights"
_POLL_S = 0.5
_SUBMITTED, _STOPPED, _ERROR = "SUBMITTED", "STOPPED", "ERROR"


class FineTuneTask(TrainTask):
    """Fine-tunes the weights in service on the datastore's final labels, as BioSAM-2 does.

    Args:
        settings: App settings (``--conf``).
        pool: Predictors in service and the folder of their versions.
        after_training: Called with the datastore's folder and the plan after a successful training, for
            reports about the datastore; an exception is logged and ignored.
    """

    def __init__(
        self,
        settings: Settings,
        pool: PredictorPool,
        after_training: Callable[[Path, TrainingPlan], None] = lambda folder, plan: None,
    ):
        super().__init__("Fine-tune on the labels of the datastore (BioSAM-2)")
        self._settings = settings
        self._pool = pool
        self._after_training = after_training

    def config(self) -> dict[str, Any]:
        """Options for viewers."""
        first = str(resolve_device(self._settings.device))
        devices = [first, *(name for name in available_devices() if name != first)]
        # Training the image encoder takes a GPU; on a CPU the decoder trains in minutes on cached embeddings.
        return viewer_config(devices, "decoder" if first == "cpu" else "paper")

    def stats(self) -> dict[str, Any]:
        """Statistics of the running or last training (``read_stats``)."""
        return read_stats(self._folder)

    def stats_since(self, moment: float) -> dict[str, Any]:
        """Statistics of a training that started at a moment or later; empty if the last one is older."""
        return stats_since(self._folder, moment)

    @property
    def report_file(self) -> Path:
        """Page about the last training that ended."""
        return self._folder / REPORT_FILE

    def new_labels(self, datastore: Datastore, moment: float) -> int:
        """Number of images with a final label that no training has used, saved since a moment."""
        return labels_since(datastore, max(moment, started_at(self._folder), self._tried()))

    def start(
        self, request: dict[str, Any], force_sync: bool = False, enqueue: bool = False
    ) -> tuple[Any, str | None]:
        """Starts a training as MONAI Label's ``AsyncTask.run``, while no other server trains.

        The server holds a lock file until the training has ended, or until it is killed itself.

        Returns:
            MONAI Label's task, or the statistics with ``force_sync``; None, and why, where a training runs.

        Raises:
            StorageFullError, ReadOnlyError: The model folder cannot be written.
        """
        if not self._acquire():
            return None, _ELSEWHERE
        began, task = time.time(), None
        try:
            task, why = AsyncTask.run(_QUEUE, request=request, force_sync=force_sync, enqueue=enqueue)
        finally:
            if task is None or force_sync:
                self._lock.release()
        if task is not None and not force_sync:
            background_executors[_QUEUE].submit(self._end, task, began)
        return task, why and "a training is running"

    @property
    def is_elsewhere(self) -> bool:
        """Whether another server trains on these weights."""
        return not self._lock.is_locked and is_locked(Path(self._lock.lock_file))

    def wait_for_others(self) -> None:
        """Returns once no other server trains."""
        while self.is_elsewhere:
            time.sleep(_POLL_S)

    @cached_property
    def _lock(self) -> FileLock:
        return FileLock(self._folder / _LOCK_FILE, thread_local=False)

    def _acquire(self) -> bool:
        with storage_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(Timeout):
                self._lock.acquire(PROBED_S)
                return True
        return False

    def _end(self, task: Mapping[str, Any], began: float) -> None:
        """Runs in MONAI Label's queue after a training; a stopped one has seen all labels until now."""
        tried = time.time() if task["status"] == _STOPPED else began
        try:
            write_atomically(self._folder / _TRIED_FILE, str(tried).encode())
        except OSError as error:
            logger.warning("The time of the training cannot be written: %s", error)
        self._lock.release()

    def _tried(self) -> float:
        try:
            return float((self._folder / _TRIED_FILE).read_text())
        except (OSError, ValueError):
            return 0.0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the lock in a training that no server started, such as one of torchrun.

        Raises:
            TrainingError: A server trains.
        """
        if belongs_to_server() or rank():
            yield
            return
        if not self._acquire():
            raise TrainingError(_ELSEWHERE)
        try:
            yield
        finally:
            self._lock.release()

    def options(self, request: Mapping[str, Any]) -> TrainOptions:
        """Options of a request.

        Raises:
            TrainingError: Options are unknown or out of range.
            DeviceError: The device does not exist.
        """
        options = read_options(request, self.config())
        resolve_device(options.device)
        return options

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Trains. MONAI Label calls it in a process of its own and kills that to stop the training.

        Returns:
            Statistics of the training.

        Raises:
            TrainingError: The training failed; the weights in service are unchanged.
        """
        options = self.options(request)
        device = resolve_device(options.device)
        if _WORKER_KEY in request:
            lower_priority()
            torch.set_num_threads(self._settings.threads or max(1, (os.cpu_count() or 1) // 2))
        plan = self._plan(options, datastore, "cuda" if device.type == "cuda" else "cpu")
        with self._alone():
            launch(train, plan, processes(device, options.multi_gpu))
        if rank() == 0:
            self._report(datastore, plan)
        return self.stats()

    @property
    def _folder(self) -> Path:
        """Folder of the running or last training."""
        return self._pool.registry.folder / TRAINING_FOLDER

    def _report(self, datastore: Datastore, plan: TrainingPlan) -> None:
        """Calls ``after_training``; the new weights are in service already, whatever happens here."""
        folder = getattr(datastore, "_datastore_path", None)
        if folder is None:
            return
        try:
            self._after_training(Path(folder), plan)
        except Exception as error:
            logger.warning("No report after the training: %s", error, exc_info=True)

    def _plan(self, options: TrainOptions, datastore: Datastore, device: DeviceType) -> TrainingPlan:
        registry, started = self._pool.registry, time.time()
        # Read before the weights: a version published in between is then detected at the end.
        published = self._pool.versions.current()
        service = described(self._pool.weights(options.device), registry, device)
        return TrainingPlan(
            options=options,
            images=tuple(labelled_images(datastore)),
            weights=self._start(service, options, device),
            service=service,
            published=published,
            model_dir=registry.folder,
            device=options.device,
            precision=self._settings.precision,
            max_voxels=self._settings.max_voxels,
            embedding_cache_mb=self._settings.embedding_cache_mb,
            started=started,
            convert_for=openvino_dtype(self._settings),
        )

    def _start(self, service: Weights, options: TrainOptions, device: DeviceType) -> Weights:
        """Weights to start from."""
        if options.start_from == "published" or service.version is None:
            return service
        registry = self._pool.registry
        base = named_weights(service.base, self._settings, registry, device, "the base of fine-tuning")
        return described(base, registry, device)


def labelled_images(datastore: Datastore) -> list[LabelledImage]:
    """Images with a final label, by id."""
    images = []
    for item in datastore.datalist():
        image, label = Path(item["image"]), Path(item["label"])
        name = split_ending(label.name)[0]
        info = datastore.get_label_info(name, DefaultLabelTag.FINAL) or {}
        images.append(LabelledImage(name, image, label, listed_label_info(info)))
    return sorted(images, key=lambda labelled: labelled.id)


def labels_since(datastore: Datastore, moment: float) -> int:
    """Number of images with a final label saved at a moment (seconds since 1970) or later.

    Labels store full seconds.
    """
    saved = (
        (datastore.get_label_info(label, DefaultLabelTag.FINAL) or {}).get("ts")
        for image in datastore.list_images()
        if (label := datastore.get_label_by_image_id(image, DefaultLabelTag.FINAL))
    )
    # Clients can write any value; one that is no time counts as old.
    return sum((ts if isinstance(ts, (int, float)) else 0) >= moment for ts in saved)


class AutoTrain:
    """Starts a training after enough new labels, which no training has used.

    Labels are counted by their time of saving, so that the count survives a restart.

    Args:
        after: Number of new labels that starts a training, on as many images; 0 for never.
        new_labels: Counts labels saved after the start of the last successful training and after a moment
            in seconds since 1970.
        start: Starts a training; returns False if one runs already.
        wait: Returns once no other server trains.
    """

    def __init__(
        self,
        after: int,
        new_labels: Callable[[float], int],
        start: Callable[[], bool],
        wait: Callable[[], None] = lambda: None,
    ):
        self._after = after
        self._new_labels = new_labels
        self._start = start
        self._wait = wait
        # A training reports its start after ten seconds of imports; and a failed one is not repeated with
        # the same labels while the server runs.
        self._started = 0.0
        # Whether a check is queued behind the running training.
        self._is_queued = False
        self._lock = threading.Lock()

    def look(self) -> None:
        """Starts a training after enough new labels; while one runs, checks again at its end.

        If the labels cannot be counted now, the next call counts them.
        """
        if not self._after:
            return
        try:
            self._look()
        except BioSam2Error as error:
            logger.warning("Automatic training skipped: %s", error)

    def _look(self) -> None:
        with self._lock:
            new = self._new_labels(self._started)
            if new < self._after:
                return
            if not _is_submitted() and self._start():
                logger.info("Automatic training starts after %d new labels", new)
                self._started = time.time()
            elif not self._is_queued:
                self._is_queued = True
                queue = background_executors.setdefault(_QUEUE, ThreadPoolExecutor(1))
                queue.submit(self._look_after, tasks(_QUEUE)[-1:])

    def _look_after(self, running: list[dict[str, Any]]) -> None:
        """Runs in MONAI Label's queue after the running training; after a stopped one nothing starts."""
        self._wait()
        with self._lock:
            self._is_queued = False
        for training in running:
            if training["status"] == _SUBMITTED:
                # MONAI Label could not start its process, and would never report that.
                training["status"] = _ERROR
        if not any(task["status"] == _STOPPED for task in tasks(_QUEUE)[-1:]):
            self.look()


def _is_submitted() -> bool:
    """Whether a training is about to start: MONAI Label counts it as running once it has a process."""
    return any(task["status"] == _SUBMITTED for task in tasks(_QUEUE)[-1:])
