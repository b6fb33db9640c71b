"""Where the images of a batch are worked on: in this process, or as tasks on a Ray cluster.

Each process opens the app once, as MONAI Label does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from monailabel.interfaces.utils.app import app_instance

from lib.batch.runner import SCORE, ImageOutcome, ImageWork, Infer, Request
from lib.errors import EvaluationError, SettingsError
from lib.scoring.base import UNUSABLE
from lib.scoring.uncertainty import NAME as UNCERTAINTY
from lib.scoring.uncertainty import ScoringRun, UncertaintyScoring

# Tasks that wait for each one that runs, so that no worker is ever without an image.
_WAITING = 2
# Workers that may end in the middle of an image, one after the other, before it is given up.
_RETRIES = 3
# What tells Ray's servers about the use of Ray.
_NO_STATISTICS = ("RAY_USAGE_STATS_ENABLED", "0")
# Ray tries once to reach a cluster, for 40 seconds; it would try 20 times.
_ONE_TRY = ("RAY_gcs_server_port_wait_time_s", "1")


@dataclass(frozen=True)
class AppOptions:
    """What an app is opened with; the same paths on every machine.

    Attributes:
        app: Folder of ``main.py``.
        studies: Folder, or the address of a DICOMweb server.
        conf: Names and values of ``--conf``.
    """

    app: str
    studies: str
    conf: tuple[tuple[str, str], ...]

    def open(self) -> Any:
        """The app; one for each process."""
        # MONAI Label would import lib a second time, and classes of the two would not be equal.
        os.environ["MONAI_LABEL_RELOAD_APP_LIB"] = "false"
        return app_instance(self.app, self.studies, dict(self.conf))


@cache
def image_work(options: AppOptions, request: str) -> ImageWork:
    """Work on the images of one run, in this process.

    Args:
        options: App.
        request: Request of the run as JSON.
    """
    app = options.open()
    infer = _scoring(app, json.loads(request)) if json.loads(request)["model"] == SCORE else app.infer
    return ImageWork(infer, app.datastore(), app.engines.priority)


def scoring_run(app: Any, request: Request) -> ScoringRun:
    """The run that scores the images of a request with ``model`` ``score`` and options of the method."""
    method: UncertaintyScoring = app.scoring_methods[UNCERTAINTY]
    options = {name: value for name, value in request.items() if name != "model"}
    return method.one_by_one(method.options(options), app.datastore())


def _scoring(app: Any, request: Request) -> Infer:
    run = scoring_run(app, request)

    def score(asked: dict[str, Any]) -> dict[str, Any]:
        try:
            found, is_new = run.update(asked["image"])
        except UNUSABLE as error:
            raise EvaluationError(str(error) or type(error).__name__) from error
        summary = f"{found.score:.3f}" if is_new else "unchanged"
        return {"file": None, "params": {"score": found.score, "summary": summary}}

    return score


class InProcess:
    """Works on the images in this process, one after the other: an ``Executor``.

    Args:
        options: App.
    """

    def __init__(self, options: AppOptions):
        self._options = options

    def __call__(self, request: Request, user: str, images: Iterable[str]) -> Iterator[ImageOutcome]:
        """Works on images."""
        return image_work(self._options, json.dumps(request)).in_turn(request, user, images)


class RayWorkers:
    """Works on the images as tasks of a Ray cluster: an ``Executor``.

    The task of a worker that ends in the middle is done by another one. Ray's dashboard shows each under the
    names of the model and the image.

    Args:
        options: App.
        address: Address of the cluster: ``auto`` for that of this machine, ``local`` to start one for as
            long as this process runs.
        cpus: Cores of each worker.
        gpus: GPUs of each worker, also a share of one.

    Raises:
        SettingsError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, options: AppOptions, address: str, cpus: int = 1, gpus: float = 0.0):
        os.environ.setdefault(*_NO_STATISTICS)
        if address != "local":
            os.environ.setdefault(*_ONE_TRY)
        try:
            import ray
        except ImportError as error:
            raise SettingsError("Ray is not installed: pip install -r requirements-ray.txt") from error
        paths = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        try:
            ray.init(address, log_to_driver=False, runtime_env={"env_vars": paths})
        except ConnectionError as error:
            raise SettingsError(
                f"There is no Ray cluster at {address!r}: start one with ray start --head, or use RAY=local"
            ) from error
        self._ray = ray
        self._options = options
        # A worker with a GPU would otherwise end after each image, with the network that it has loaded.
        limits = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": _RETRIES, "max_calls": 0}
        self._task = ray.remote(**limits)(_work_on)
        self._cpus = cpus

    def __call__(self, request: Request, user: str, images: Iterable[str]) -> Iterator[ImageOutcome]:
        """Works on images, in any order."""
        waiting: dict[Any, str] = {}
        left = iter(images)
        while True:
            workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._cpus)
            for image in islice(left, (1 + _WAITING) * workers - len(waiting)):
                named = self._task.options(name=f"{request['model']} {image}")
                waiting[named.remote(self._options, request, user, image)] = image
            if not waiting:
                return
            (ended,), _ = self._ray.wait(list(waiting))
            yield self._outcome(ended, waiting.pop(ended))

    def _outcome(self, task: Any, image: str) -> ImageOutcome:
        try:
            outcome: ImageOutcome = self._ray.get(task)
            return outcome
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError) as error:
            reason = str(error).splitlines()[0]
            return ImageOutcome(image, f"{1 + _RETRIES} workers ended: {reason}", False)


def _work_on(options: AppOptions, request: Request, user: str, image: str) -> ImageOutcome:
    """A task: runs in a worker of the cluster."""
    return image_work(options, json.dumps(request))(request, user, image)
