"""The MONAI Label app: reads the settings and registers the tasks."""

from __future__ import annotations

import logging
from pathlib import Path

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from lib.activelearning import endpoints as next_endpoints
from lib.activelearning.strategies import all_strategies
from lib.engine.engines import Engines
from lib.errors import BioSam2Error
from lib.images.cache import ImageCache
from lib.infers import endpoints as infer_endpoints
from lib.infers.task import Services
from lib.infers.tasks import all_tasks
from lib.settings import Settings
from lib.signals.store import ScoreStore
from lib.trainers import endpoints as train_endpoints
from lib.trainers.auto import AutoTrain
from lib.trainers.task import FineTuneTask

logger = logging.getLogger(__name__)

# What viewers offer to paint when --conf labels names nothing: OHIF lists no row to click on without a label.
DEFAULT_LABELS = ("object",)

TRAINER = "biosam2"


class BioSam2App(MONAILabelApp):
    """SAM 2 for biomedical images.

    Args:
        app_dir: the folder of this file.
        studies: a folder, or the address of a DICOMweb server.
        conf: the ``--conf`` options; ``lib/settings.py`` lists them.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]):
        options = {name: value for name, value in conf.items() if name != "server_mode"}
        settings = Settings.from_conf(options)
        model_dir = settings.model_dir or Path(app_dir) / "model"
        self._settings = settings
        self._engines = Engines(settings, model_dir)
        images = ImageCache(settings.image_cache_mb << 20, max_voxels=settings.max_voxels)
        self._auto_train = AutoTrain(settings.auto_train, self._start_training)
        self._services = Services(settings, self._engines, images, settings.labels)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="BioSAM-2",
            description="Interactive segmentation of biomedical images with SAM 2",
            version="0.1.0",
            labels=list(settings.labels or DEFAULT_LABELS),
        )

    def init_infers(self) -> dict[str, InferTask]:
        """The tasks of ``lib/infers``."""
        return all_tasks(self._services)

    def init_trainers(self) -> dict[str, TrainTask]:
        """One: viewers show the numbers of the first trainer alone."""
        return {TRAINER: FineTuneTask(self._settings, self._engines)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Those of ``lib/selection``; OHIF always asks for ``random``."""
        scores = ScoreStore(self._engines.registry.folder)
        return all_strategies(self._settings.strategy, self._settings.lease_minutes, scores)

    def on_init_complete(self) -> None:
        """Called by the server alone: guards its routes, and loads the network before the first click."""
        from monailabel.app import app as server

        infer_endpoints.install(server, self, self._infers, self._engines.courtesy)
        train_endpoints.install(server, self._engines, self._trainers)
        next_endpoints.install(server, self._strategies)
        if self._settings.rollback is not None:
            self._engines.roll_back(self._settings.rollback)
        try:
            self._engines.get().warm_up()
        except BioSam2Error as error:
            logger.error("No network is loaded yet: %s", error)
        super().on_init_complete()

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """MONAI Label calls this whenever a client has submitted a label."""
        if self._datastore.get_label_by_image_id(image_id, DefaultLabelTag.FINAL):
            self._auto_train.label_saved(image_id)

    def _start_training(self) -> bool:
        """Starts the cheapest training in the background, unless one runs."""
        return self.async_training(TRAINER, {TRAINER: {"preset": "decoder"}}) is not None

    def _download_dcmqi_tools(self) -> None:
        """Downloads nothing. MONAI Label fetches a converter here, and stops when it cannot."""
