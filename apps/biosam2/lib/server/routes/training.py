"""The server's routes for training and for weights, guarded.

MONAI Label starts a training whatever its options are, and the client hears nothing of what was wrong with
them; it replaces and deletes weight files in place. These routes stand before its own: options are checked
before a training starts, ``PUT /model/biosam2`` publishes a checkpoint as a new version once it was found to
fit, and ``DELETE /model/biosam2`` goes back to the version before.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, HTTPException, UploadFile
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints import train as monailabel_train
from monailabel.endpoints.user.auth import RBAC, User

from lib.engine.predictor_pool import PredictorPool
from lib.errors import CheckpointError
from lib.http import http_errors
from lib.trainers.task import FineTuneTask
from lib.trainers.uploads import publish_upload

_Admin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]
_Annotator = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]


def install(server: FastAPI, engines: PredictorPool, trainers: dict[str, FineTuneTask]) -> None:
    """Puts the guarded routes before MONAI Label's own.

    Args:
        server: MONAI Label's FastAPI application.
        engines: whose weights the clients ask for.
        trainers: the train tasks by name.
    """
    training = _TrainRoutes(trainers)
    weights = _ModelRoutes(engines, trainers)
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/train/", training.start_all, methods=["POST"])
    router.add_api_route("/train/{model}", training.start, methods=["POST"])
    router.add_api_route("/model/info/{model}", weights.info, methods=["GET"])
    router.add_api_route("/model/{model}", weights.download, methods=["GET"])
    router.add_api_route("/model/{model}", weights.upload, methods=["PUT"])
    router.add_api_route("/model/{model}", weights.go_back, methods=["DELETE"])
    server.router.routes[:0] = router.routes


class _TrainRoutes:
    """MONAI Label's training routes, behind a check of the options."""

    def __init__(self, trainers: dict[str, FineTuneTask]):
        self._trainers = trainers

    def start_all(self, user: _Admin, params: dict[str, Any] | None = None, run_sync: bool = False) -> Any:
        """As OHIF starts it: options by the name of the trainer, or none."""
        for name, request in (params or {}).items():
            if isinstance(request, dict):
                self._check(name, request)
        return monailabel_train.run(params, run_sync)

    def start(
        self,
        model: str,
        user: _Admin,
        params: dict[str, Any] | None = None,
        run_sync: bool = False,
        enqueue: bool = False,
    ) -> Any:
        """As Slicer and QuPath start it: the options of one trainer."""
        self._check(model, params or {})
        with http_errors():
            return monailabel_train.run_model(model, params, run_sync, enqueue)

    def _check(self, name: str, request: dict[str, Any]) -> None:
        if name not in self._trainers:
            known = ", ".join(self._trainers)
            raise HTTPException(
                HTTPStatus.NOT_FOUND, detail=f"there is no trainer {name!r}; there is {known}"
            )
        with http_errors():
            self._trainers[name].options(request)


class _ModelRoutes:
    """The weights in service, under the name of any task or trainer: they all share them."""

    def __init__(self, engines: PredictorPool, trainers: dict[str, FineTuneTask]):
        self._engines = engines
        self._trainers = trainers

    def info(self, model: str, user: _Admin) -> dict[str, Any]:
        """Checksum of the weights in service, every version with what it was worth, and the training."""
        with http_errors():
            weights = self._engines.weights()
            versions = [self._engines.versions.read(name) for name in self._engines.versions.names()]
        stats = self._trainers[model].stats() if model in self._trainers else {}
        return {
            "name": weights.name,
            "checksum": f"SHA256:{weights.sha256}",
            "modified_time": int(weights.path.stat().st_mtime),
            "versions": {
                item.name: {"parent": item.parent or item.base, "created": item.created, **item.metrics}
                for item in versions
            },
            **({"train_stats": stats} if stats else {}),
        }

    def download(self, model: str, user: _Admin) -> FileResponse:
        """The weights in service as a file."""
        with http_errors():
            weights = self._engines.weights()
        return FileResponse(
            weights.path, media_type="application/octet-stream", filename=f"{weights.name}.pt"
        )

    def upload(self, model: str, user: _Annotator, file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        """Publishes a checkpoint of the network in service."""
        with http_errors():
            predictor, service = self._engines.served()
        try:
            version = publish_upload(file.file, service, self._engines.registry, predictor.runtime.type)
        except CheckpointError as error:
            # Here it is the client's file that is wrong, and not the server's.
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, detail=str(error)) from error
        return {"version": version.name, "checksum": f"SHA256:{version.sha256}"}

    def go_back(self, model: str, user: _Annotator) -> dict[str, Any]:
        """Serves what was in service before the present version. No file is deleted."""
        versions = self._engines.versions
        with http_errors(), versions.unchanged():
            name = versions.current()
            if name is None:
                raise HTTPException(
                    HTTPStatus.CONFLICT,
                    detail="the base weights are in service: there is nothing to go back to",
                )
            versions.switch(versions.read(name).before)
        with http_errors():
            return {"version": self._engines.weights().name}
