"""The MONAI Label app: reads the settings and registers the tasks."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from monailabel.config import settings as monailabel_settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from lib.activelearning.strategy import all_strategies
from lib.child_process import become_server, belongs_to_server, end_with_server
from lib.dashboard import OVERVIEW_FILE, write_overview
from lib.datastores.dicomweb import open_store
from lib.datastores.local import open_folder
from lib.engine.predictor_pool import PredictorPool
from lib.errors import BioSam2Error, SettingsError
from lib.files import use_own_temporary_folder
from lib.images.cache import ImageCache
from lib.infers.automatic import NAME as AUTO
from lib.infers.registry import all_tasks
from lib.infers.task import EMBED, EmbedTask, Services, infer
from lib.infers.templates import Templates
from lib.pathology.from_labels import LabelledSlideTask
from lib.pathology.task import NAME as PATHOLOGY
from lib.pathology.task import answer_slide, slide_tasks
from lib.scoring.background import AutomaticScoring, ask_server, is_worker_process, start, state_of
from lib.scoring.base import scores_of
from lib.scoring.registry import all_methods
from lib.scoring.store import ScoreStore
from lib.settings import Settings
from lib.trainers.config import TrainingPlan
from lib.trainers.task import AutoTrain, FineTuneTask

logger = logging.getLogger(__name__)

# What viewers offer to paint when --conf labels names nothing: OHIF lists no row to click on without a label.
DEFAULT_LABELS = ("object",)

TRAINER = "biosam2"


class BioSam2App(MONAILabelApp):
    """SAM 2 for biomedical images.

    Args:
        app_dir: Folder of this file.
        studies: Folder, or the address of a DICOMweb server.
        conf: ``--conf`` options; ``lib/settings.py`` lists them.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]):
        end_with_server()
        options = {name: value for name, value in conf.items() if name != "server_mode"}
        settings = Settings.from_conf(options)
        model_dir = settings.model_dir or Path(app_dir) / "model"
        self._settings = settings
        self._engines = PredictorPool(settings, model_dir)
        images = ImageCache(settings.image_cache_mb << 20, max_voxels=settings.max_voxels)
        self._fine_tuning = FineTuneTask(settings, self._engines, _write_overview)
        self._auto_train = AutoTrain(
            settings.auto_train, self._new_labels, self._start_training, self._fine_tuning.wait_for_others
        )
        self._auto_scoring = AutomaticScoring(lambda: state_of(self._datastore, self._engines.versions))
        self._services = Services(settings, self._engines, images, settings.labels)
        self._templates = Templates(lambda: self._datastore, images)
        on_slides = LabelledSlideTask(self._services, self._templates)
        self._slide_tasks = {**slide_tasks(self._services), AUTO: on_slides}
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="BioSAM-2",
            description="Interactive segmentation of biomedical images with SAM 2",
            version="0.1.0",
            labels=list(settings.labels or DEFAULT_LABELS),
        )

    def init_datastore(self) -> Datastore:
        """A folder or a DICOMweb store; the server and its background processes share it."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        try:
            return open_folder(self.studies)
        except SettingsError as error:
            # The web framework prints the traceback of whatever fails at start; its last line is enough.
            sys.tracebacklimit = 0
            raise error from None

    def _init_dicomweb_datastore(self) -> Datastore:
        """Called by MONAI Label where ``studies`` is the address of a DICOMweb store."""
        return open_store(self.studies, self._settings.max_voxels)

    def init_infers(self) -> dict[str, InferTask]:
        """The tasks of ``lib/infers``, and the one for slides."""
        return {**all_tasks(self._services, self._templates), PATHOLOGY: self._slide_tasks[PATHOLOGY]}

    def init_trainers(self) -> dict[str, TrainTask]:
        """One trainer: viewers show the numbers of the first one only."""
        return {TRAINER: self._fine_tuning}

    def init_strategies(self) -> dict[str, Strategy]:
        """The strategies of ``lib/activelearning``; OHIF always asks for ``random``."""
        scores = ScoreStore(scores_of(self._datastore, self._engines.registry.folder))
        return all_strategies(self._settings.strategy, self._settings.lease_minutes, scores)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """The methods of ``lib/scoring``."""
        return all_methods(self._settings, self._engines)

    def on_init_complete(self) -> None:
        """Called by the server alone: installs the routes, and loads the network before the first click."""
        from monailabel.app import app as server

        become_server()
        use_own_temporary_folder()
        self._engines.versions.sweep()
        from lib.server.installation import AppParts, install

        parts = AppParts(
            self,
            self._settings,
            self._engines,
            self._services.images,
            self._trainers,
            self._strategies,
            self._scoring_methods,
        )
        self._sessions = install(server, parts)
        if self._settings.rollback is not None:
            self._engines.roll_back(self._settings.rollback)
        try:
            self._engines.get().warm_up()
        except BioSam2Error as error:
            logger.error("No weights are loaded yet: %s", error)
        super().on_init_complete()

    @property
    def engines(self) -> PredictorPool:
        """Networks in service."""
        return self._engines

    @property
    def scoring_methods(self) -> dict[str, ScoringMethod]:
        """Scoring methods by name."""
        return self._scoring_methods

    @property
    def models(self) -> dict[str, InferTask]:
        """Tasks by name."""
        return self._infers

    def _load_sessions(self, load: bool = False) -> None:
        """Called by MONAI Label in every process; the server alone has sessions."""

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Segments an image of the datastore, or a file that a client sent."""
        tasks = {**self._infers, EMBED: EmbedTask(self._services)}
        return infer(tasks, request, datastore or self._datastore)

    def infer_wsi(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Polygons on a slide, for QuPath and the Digital Slide Archive."""
        return answer_slide(self._slide_tasks, request, datastore or self._datastore)

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """MONAI Label calls this whenever a client has submitted a label."""
        self._auto_train.look()
        if self._auto_update_scoring:
            self.async_scoring(None)

    def async_scoring(self, method: str | None, params: dict[str, Any] | None = None) -> Any:
        """Scores in the background what has changed; the process of a training asks the server to.

        MONAI Label calls it when the server starts, after each next sample and after a training.
        """
        if not self._scoring_methods:
            return {}
        if is_worker_process():
            port = monailabel_settings.MONAI_LABEL_SERVER_PORT
            return ask_server("/scoring/", None, port) if belongs_to_server() else {}
        try:
            return start(method, params or {}, enqueue=True) if method else self._auto_scoring.start()
        except BioSam2Error as error:
            logger.warning("Nothing is scored now: %s", error)
            return {}

    def _new_labels(self, moment: float) -> int:
        """How many images have a final label that no training has learned from, from after a moment."""
        return self._fine_tuning.new_labels(self._datastore, moment)

    def _start_training(self) -> bool:
        """Starts the cheapest training in the background, unless one runs."""
        return self._fine_tuning.start({"model": TRAINER, "preset": "decoder"})[0] is not None


def _write_overview(studies: Path, plan: TrainingPlan) -> None:
    """Writes the page about the datastore and the model after a training."""
    write_overview(studies, plan.model_dir, plan.folder / OVERVIEW_FILE, plan.max_voxels)
