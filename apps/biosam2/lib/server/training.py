"""``/train`` and ``/model``: trainings, and the versions of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import File, UploadFile
from fastapi.responses import FileResponse
from monailabel.endpoints import train as monailabel_train

from lib.engine.predictor_pool import PredictorPool
from lib.errors import CheckpointError
from lib.server.routing import (
    Admin,
    AnyUser,
    JsonBody,
    Routes,
    file_response,
    of_server,
    refuse,
    refuse_gpus,
    refuse_keys,
    require_known,
)
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


routes = Routes(tags=["Train"])
_Trainers = Annotated[Mapping[str, FineTuneTask], of_server("trainers")]
_Engines = Annotated[PredictorPool, of_server("engines")]


@routes.post("/train/")
def start_all(user: Admin, trainers: _Trainers, params: JsonBody, run_sync: bool = False) -> Any:
    """Starts all trainers, as OHIF does: options by the name of the trainer."""
    for name, options in params.items():
        if name in _OF_VIEWERS and isinstance(options, str | None):
            continue
        require_known("trainer", name, trainers, {})
        if not isinstance(options, dict):
            kind = type(options).__name__
            refuse(HTTPStatus.BAD_REQUEST, f"the options of {name!r} must be an object, not a {kind}")
    requests = {name: _checked(trainers, name, params.get(name) or {}) for name in trainers}
    started = {}
    for name, request in requests.items():
        task, detail = trainers[name].start(request, run_sync, enqueue=True)
        started[name] = {"result": task, "detail": detail}
    return started


@routes.post("/train/{model}")
def start(
    user: Admin,
    trainers: _Trainers,
    model: str,
    params: JsonBody,
    run_sync: bool = False,
    enqueue: bool = False,
) -> Any:
    """Starts one trainer, as 3D Slicer and QuPath do. Nothing but known options reaches its process."""
    request = _checked(trainers, model, params)
    task, why = trainers[model].start(request, run_sync, enqueue)
    if task is None:
        refuse(HTTPStatus.TOO_MANY_REQUESTS, f"{why}: wait until it ends, or stop it with DELETE /train/")
    return task


@routes.get("/train/")
def status(user: AnyUser, trainers: _Trainers, all: bool = False, check_if_running: bool = False) -> Any:
    """The last training with its statistics (epoch, Dice before and after, reason), or all trainings.

    A training of another server on the same weights counts as running. 404 without any training. Statistics
    are empty until the process of a training has reported its start.
    """
    for name, other in trainers.items():
        if other.is_elsewhere and not all:
            stats = other.stats()
            told = {"request": {"model": name}, "details": [stats.get("message", "")], "stats": stats}
            return {"id": "", "status": "RUNNING", **told}
    found = monailabel_train.status(all, check_if_running)
    if all:
        return found
    trainer, started = trainers.get(found["request"].get("model", "")), found.get("start_ts")
    if trainer is None or not started:
        return {**found, "stats": {}}
    return {**found, "stats": trainer.stats_since(datetime.strptime(started, _TASK_TIME).timestamp())}


@routes.get("/train/report")
def report(user: AnyUser, trainers: _Trainers) -> FileResponse:
    """The page about the last training that ended: gain, curves, masks before and after."""
    for trainer in trainers.values():
        if trainer.report_file.is_file():
            return FileResponse(trainer.report_file, media_type="text/html", headers=_PAGE_HEADERS)
    refuse(HTTPStatus.NOT_FOUND, "no training has ended yet: there is no report")


@routes.delete("/train/")
def stop(user: Admin, trainers: _Trainers) -> Any:
    """Stops the running training."""
    if any(trainer.is_elsewhere for trainer in trainers.values()):
        refuse(HTTPStatus.CONFLICT, "another server trains on the same weights: stop it there")
    return monailabel_train.stop()


def _checked(trainers: Mapping[str, FineTuneTask], name: str, params: dict[str, Any]) -> dict[str, Any]:
    """The request of a training: known options alone."""
    require_known("trainer", name, trainers, params)
    refuse_keys(params, ("bundle_path",), "it is not an option of this server")
    refuse_gpus(params)
    trainers[name].options(params)
    return {
        "model": name,
        **{key: value for key, value in params.items() if key in TrainOptions.model_fields},
    }


# Under the name of any task or trainer: they all share the weights in service.
@routes.get("/model/info/{model}")
def model_info(user: Admin, engines: _Engines, trainers: _Trainers, model: str) -> dict[str, Any]:
    """Checksum of the weights in service, every version with its metrics, and the training."""
    weights, versions = engines.weights(), engines.versions
    stats = trainers[model].stats() if model in trainers else {}
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


@routes.get("/model/{model}")
def download(user: Admin, engines: _Engines, model: str) -> FileResponse:
    """The weights in service as a file."""
    weights = engines.weights()
    return file_response(weights.path, "application/octet-stream", f"{weights.name}.pt")


@routes.put("/model/{model}")
def upload(user: Admin, engines: _Engines, model: str, file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    """Publishes a checkpoint of the network in service as a new version."""
    predictor, service = engines.served()
    try:
        version = publish_upload(file.file, service, engines.registry, predictor.runtime.type)
    except CheckpointError as error:
        # The client's file is wrong, not the server's.
        refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    return {"version": version.name, "checksum": f"SHA256:{version.sha256}"}


@routes.delete("/model/{model}")
def go_back(user: Admin, engines: _Engines, model: str) -> dict[str, Any]:
    """Serves the version that was in service before the present one. No file is deleted."""
    versions = engines.versions
    with versions.unchanged():
        name = versions.current()
        if name is None:
            refuse(HTTPStatus.CONFLICT, "the base weights are in service: there is nothing to go back to")
        versions.switch(versions.before(name))
    return {"version": engines.weights().name}
