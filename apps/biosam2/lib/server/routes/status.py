"""What the server is and does: ``/info/``, ``/health``, ``/metrics`` and ``/logs``."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from monailabel.interfaces.app import MONAILabelApp
from prometheus_client import CONTENT_TYPE_LATEST

from lib.engine.predictor_pool import PredictorPool
from lib.errors import BioSam2Error
from lib.server.access import Admin, AnyUser
from lib.server.error_responses import refuse
from lib.server.observability import Metrics

_NVIDIA_SMI_S = 20


class StatusRoutes:
    """The routes about the server itself.

    Args:
        app: The app.
        engines: Networks in service.
        metrics: Metrics of the requests.
        log_file: File that MONAI Label logs to.
    """

    def __init__(self, app: MONAILabelApp, engines: PredictorPool, metrics: Metrics, log_file: Path):
        self._app = app
        self._engines = engines
        self._metrics = metrics
        self._log_file = log_file

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter()
        router.add_api_route("/info/", self.info, methods=["GET"], tags=["App"], response_model=None)
        for path, answer in (
            ("/health", self.health),
            ("/metrics", self.prometheus),
            ("/logs/", self.logs),
            ("/logs/gpu", self.gpu),
        ):
            router.add_api_route(path, answer, methods=["GET"], tags=["Others"], response_model=None)
        return router

    def info(self, user: AnyUser) -> Any:
        """Models, trainers, strategies and labels, for viewers."""
        return self._app.info()

    def health(self) -> Response:
        """200 where clicks can be answered, 503 with a reason where not; says nothing else, to anybody."""
        try:
            self._engines.weights()
        except BioSam2Error:
            return JSONResponse({"status": "no weights"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return JSONResponse({"status": "ok"})

    def prometheus(self, user: AnyUser) -> Response:
        """Metrics in Prometheus' format."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def logs(self, user: Admin, lines: Annotated[int, Query(ge=0, le=1_000_000)] = 300) -> Response:
        """The last lines of the log; all of it for 0."""
        if not self._log_file.is_file():
            refuse(HTTPStatus.NOT_FOUND, "this server writes no log file")
        with self._log_file.open(encoding="utf-8", errors="replace") as file:
            return PlainTextResponse("".join(deque(file, lines or None)))

    def gpu(self, user: Admin) -> Response:
        """What nvidia-smi prints."""
        program = shutil.which("nvidia-smi")
        if program is None:
            refuse(HTTPStatus.NOT_FOUND, "this server has no nvidia-smi")
        done = subprocess.run([program], capture_output=True, text=True, timeout=_NVIDIA_SMI_S, check=False)
        return PlainTextResponse(done.stdout)
