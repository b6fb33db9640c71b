"""``/train`` and ``/model``: trainings, and the versions of the weights."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, File, HTTPException, UploadFile
from fastapi.responses import FileResponse
from monailabel.endpoints import train as monailabel_train
from monailabel.utils.async_tasks.task import AsyncTask

from lib.engine.predictor_pool import PredictorPool
from lib.errors import CheckpointError
from lib.server.access import Admin, AnyUser
from lib.server.error_responses import refuse
from lib.server.json_input import JSON_BODY, JsonBody
from lib.trainers.config import TrainOptions
from lib.trainers.publishing import publish_upload
from lib.trainers.task import FineTuneTask

# Local time format of MONAI Label's tasks.
_TASK_TIME = "%Y-%m-%d %H:%M:%S"
# What viewers send beside the options.
_OF_VIEWERS = frozenset({"model", "client_id", "name"})

# The page has its style and pictures in itself, and runs no script.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    "Cache-Control": "no-cache",
}


class TrainingRoutes:
    """The training routes: options are checked, and nothing else reaches the process of a training.

    Args:
        trainers: Train tasks by name.
    """

    def __init__(self, trainers: dict[str, FineTuneTask]):
        self._trainers = trainers

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/train", tags=["Train"])
        for path, answer in (("/", self.start_all), ("/{model}", self.start)):
            router.add_api_route(path, answer, methods=["POST"], response_model=None, openapi_extra=JSON_BODY)
        router.add_api_route("/", self.status, methods=["GET"], response_model=None)
        router.add_api_route("/", self.stop, methods=["DELETE"], response_model=None)
        router.add_api_route("/report", self.report, methods=["GET"], response_model=None)
        return router

    def start_all(self, user: Admin, params: JsonBody, run_sync: bool = False) -> Any:
        """Starts all trainers, as OHIF does: options by the name of the trainer."""
        for name, options in params.items():
            if name in _OF_VIEWERS and isinstance(options, str | None):
                continue
            self._require_trainer(name)
            if not isinstance(options, dict):
                kind = type(options).__name__
                refuse(HTTPStatus.BAD_REQUEST, f"the options of {name!r} must be an object, not a {kind}")
        requests = {name: self._checked(name, params.get(name) or {}) for name in self._trainers}
        started = {}
        for name, request in requests.items():
            task, detail = AsyncTask.run("train", request=request, force_sync=run_sync, enqueue=True)
            started[name] = {"result": task, "detail": detail}
        return started

    def start(
        self, model: str, user: Admin, params: JsonBody, run_sync: bool = False, enqueue: bool = False
    ) -> Any:
        """Starts one trainer, as 3D Slicer and QuPath do."""
        request = self._checked(model, params)
        task, _ = AsyncTask.run("train", request=request, force_sync=run_sync, enqueue=enqueue)
        if task is None:
            reason = "a training is running: wait until it ends, or stop it with DELETE /train/"
            refuse(HTTPStatus.TOO_MANY_REQUESTS, reason)
        return task

    def status(self, user: AnyUser, all: bool = False, check_if_running: bool = False) -> Any:
        """The last training with its statistics (epoch, Dice before and after, reason), or all trainings.

        404 without any training.
        """
        found = monailabel_train.status(all, check_if_running)
        return found if all else {**found, "stats": self._stats_of(found)}

    def report(self, user: AnyUser) -> FileResponse:
        """The page about the last training that ended: gain, curves, masks before and after."""
        for trainer in self._trainers.values():
            if trainer.report_file.is_file():
                return FileResponse(trainer.report_file, media_type="text/html", headers=_PAGE_HEADERS)
        refuse(HTTPStatus.NOT_FOUND, "no training has ended yet: there is no report")

    def stop(self, user: Admin) -> Any:
        """Stops the running training."""
        return monailabel_train.stop()

    def _stats_of(self, task: dict[str, Any]) -> dict[str, Any]:
        """Statistics of a training task; empty until its process has reported its start."""
        trainer, started = self._trainers.get(task["request"].get("model", "")), task.get("start_ts")
        if trainer is None or not started:
            return {}
        return trainer.stats_since(datetime.strptime(started, _TASK_TIME).timestamp())

    def _require_trainer(self, name: str) -> None:
        if name not in self._trainers:
            known = ", ".join(self._trainers)
            refuse(HTTPStatus.NOT_FOUND, f"Unknown trainer {name[:100]!r} (available: {known})")

    def _checked(self, name: str, params: dict[str, Any]) -> dict[str, Any]:
        """The request of a training: known options alone."""
        self._require_trainer(name)
        if params.get("model", name) != name:
            refuse(HTTPStatus.BAD_REQUEST, f"params name the model {params['model']!r}, the address {name!r}")
        if params.get("gpus", "all") not in ("all", None):
            refuse(HTTPStatus.BAD_REQUEST, "gpus is not an option: choose with device, such as cuda:1")
        if "bundle_path" in params:
            refuse(HTTPStatus.BAD_REQUEST, "bundle_path is not an option of this server")
        self._trainers[name].options(params)
        return {
            "model": name,
            **{key: value for key, value in params.items() if key in TrainOptions.model_fields},
        }


class ModelRoutes:
    """The weights in service, under the name of any task or trainer: they all share them.

    Args:
        engines: Networks in service.
        trainers: Train tasks by name.
    """

    def __init__(self, engines: PredictorPool, trainers: dict[str, FineTuneTask]):
        self._engines = engines
        self._trainers = trainers

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/model", tags=["Model"])
        router.add_api_route("/info/{model}", self.info, methods=["GET"], response_model=None)
        router.add_api_route("/{model}", self.download, methods=["GET"], response_model=None)
        router.add_api_route("/{model}", self.upload, methods=["PUT"], response_model=None)
        router.add_api_route("/{model}", self.go_back, methods=["DELETE"], response_model=None)
        return router

    def info(self, model: str, user: Admin) -> dict[str, Any]:
        """Checksum of the weights in service, every version with its metrics, and the training."""
        weights, versions = self._engines.weights(), self._engines.versions
        stats = self._trainers[model].stats() if model in self._trainers else {}
        return {
            "name": weights.name,
            "checksum": f"SHA256:{weights.sha256}",
            "modified_time": int(weights.path.stat().st_mtime),
            "versions": {
                item.name: {"parent": item.parent or item.base, "created": item.created, **item.metrics}
                for item in map(versions.read, versions.names())
            },
            **({"train_stats": stats} if stats else {}),
        }

    def download(self, model: str, user: Admin) -> FileResponse:
        """The weights in service as a file."""
        weights = self._engines.weights()
        name = f"{weights.name}.pt"
        return FileResponse(weights.path, media_type="application/octet-stream", filename=name)

    def upload(self, model: str, user: Admin, file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        """Publishes a checkpoint of the network in service as a new version."""
        predictor, service = self._engines.served()
        try:
            version = publish_upload(file.file, service, self._engines.registry, predictor.runtime.type)
        except CheckpointError as error:
            # The client's file is wrong, not the server's.
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail=str(error)) from error
        return {"version": version.name, "checksum": f"SHA256:{version.sha256}"}

    def go_back(self, model: str, user: Admin) -> dict[str, Any]:
        """Serves the version that was in service before the present one. No file is deleted."""
        versions = self._engines.versions
        with versions.unchanged():
            name = versions.current()
            if name is None:
                refuse(HTTPStatus.CONFLICT, "the base weights are in service: there is nothing to go back to")
            versions.switch(versions.before(name))
        return {"version": self._engines.weights().name}
