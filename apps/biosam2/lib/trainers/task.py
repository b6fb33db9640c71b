"""The train task ``biosam2``: what a client presses Train for."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from lib.dashboard.page import OVERVIEW_FILE, write_overview
from lib.engine.builder import described
from lib.engine.checkpoints import Weights, named_weights
from lib.engine.predictor_pool import PredictorPool
from lib.engine.registry import DeviceType
from lib.engine.runtime import available_devices, resolve_device
from lib.settings import Settings
from lib.trainers.automatic import labels_since
from lib.trainers.config import TRAINING_FOLDER, TrainingPlan
from lib.trainers.datalist import labelled_cases
from lib.trainers.distributed import launch, processes
from lib.trainers.options import TrainOptions, read_options, viewer_config
from lib.trainers.progress import read_stats, started_at
from lib.trainers.training import train

logger = logging.getLogger(__name__)

# MONAI Label tells its own training process by this key. The process gives way to the server's: a click
# must not wait for a training.
_OWN_PROCESS = "local_rank"
_NICENESS = 10


class FineTuneTask(TrainTask):
    """Fine-tunes the weights in service on the datastore's final labels, as BioSAM-2 does.

    Args:
        settings: of the app.
        engines: which weights are in service, and the folder of their versions.
    """

    def __init__(self, settings: Settings, engines: PredictorPool):
        super().__init__("Fine-tune on the labels of the datastore (BioSAM-2)")
        self._settings = settings
        self._engines = engines

    def config(self) -> dict[str, Any]:
        """The options as viewers show them."""
        first = str(resolve_device(self._settings.device))
        devices = [first, *(name for name in available_devices() if name != first)]
        # The image encoder takes a GPU; on a CPU its embeddings are kept and the decoder learns in minutes.
        return viewer_config(devices, "decoder" if first == "cpu" else "paper")

    def stats(self) -> dict[str, Any]:
        """The numbers of the last training, or of the one that runs."""
        return read_stats(self._folder)

    def new_labels(self, datastore: Datastore, moment: float) -> int:
        """How many images have a final label that no training has learned from, and from after a moment.

        Args:
            datastore: of the images.
            moment: seconds since 1970.
        """
        return labels_since(datastore, max(moment, started_at(self._folder)))

    def options(self, request: Mapping[str, Any]) -> TrainOptions:
        """The options of a request.

        Raises:
            TrainingError: naming what is wrong with them.
            DeviceError: for a device that does not exist here.
        """
        options = read_options(request, self.config())
        resolve_device(options.device)
        return options

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Trains. MONAI Label calls it in a process of its own, which it kills to stop the training.

        Args:
            request: the options that the client changed.
            datastore: whose final labels are learned from.

        Returns:
            The numbers of the training.

        Raises:
            TrainingError: with a reason; the weights in service stay what they were.
        """
        options = self.options(request)
        device = resolve_device(options.device)
        if _OWN_PROCESS in request:
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else _NICENESS)
            torch.set_num_threads(self._settings.threads or max(1, (os.cpu_count() or 1) // 2))
        plan = self._plan(options, datastore, "cuda" if device.type == "cuda" else "cpu")
        launch(train, plan, processes(device, options.multi_gpu))
        self._write_overview(datastore, plan)
        return self.stats()

    @property
    def _folder(self) -> Path:
        """Of the last training, or of the one that runs."""
        return self._engines.registry.folder / TRAINING_FOLDER

    def _write_overview(self, datastore: Datastore, plan: TrainingPlan) -> None:
        """The page about the datastore and its model; a training that ended well stays one without it."""
        folder = getattr(datastore, "_datastore_path", None)
        if folder is None:
            return
        try:
            output = plan.folder / OVERVIEW_FILE
            write_overview(Path(folder), plan.model_dir, output, plan.max_voxels)
        except Exception as error:
            # It opens what every client wrote of every image, and the new weights are in service already.
            logger.warning("The overview cannot be written: %s", error, exc_info=True)

    def _plan(self, options: TrainOptions, datastore: Datastore, device: DeviceType) -> TrainingPlan:
        registry, started = self._engines.registry, time.time()
        # Before the weights: what is published between the two is then found out at the end.
        published = self._engines.versions.current()
        service = described(self._engines.weights(options.device), registry, device)
        return TrainingPlan(
            options=options,
            cases=tuple(labelled_cases(datastore)),
            weights=self._start(service, options, device),
            service=service,
            published=published,
            model_dir=registry.folder,
            device=options.device,
            precision=self._settings.precision,
            max_voxels=self._settings.max_voxels,
            embedding_cache_mb=self._settings.embedding_cache_mb,
            started=started,
        )

    def _start(self, service: Weights, options: TrainOptions, device: DeviceType) -> Weights:
        """The weights to start from."""
        if options.start_from == "published" or service.version is None:
            return service
        registry = self._engines.registry
        base = named_weights(service.base, self._settings, registry, device, "the base of fine-tuning")
        return described(base, registry, device)
