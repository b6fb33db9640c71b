"""What the server is and does: ``/info/``, ``/health``, ``/metrics`` and ``/logs``."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import APIRouter, Query
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from monailabel.interfaces.app import MONAILabelApp
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from lib.datastores.local import LocalFolder
from lib.engine.predictor_pool import PredictorPool
from lib.errors import BioSam2Error
from lib.server.access import Admin, AnyUser
from lib.server.error_responses import refuse
from lib.server.observability import Metrics
from lib.trainers.task import FineTuneTask

_NVIDIA_SMI_S = 20


class StatusRoutes:
    """The routes about the server itself.

    Args:
        app: The app.
        engines: Networks in service.
        trainers: Train tasks by name.
        metrics: Metrics of the requests.
        log_file: File that MONAI Label logs to.
    """

    def __init__(
        self,
        app: MONAILabelApp,
        engines: PredictorPool,
        trainers: Mapping[str, FineTuneTask],
        metrics: Metrics,
        log_file: Path,
    ):
        self._app = app
        self._engines = engines
        self._trainers = trainers
        self._metrics = metrics
        self._log_file = log_file
        # State of what /info/ shows, and the answer that was made of it.
        self._info: tuple[object, bytes] = (None, b"")
        self._making = anyio.Lock()

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

    async def info(self, user: AnyUser) -> Response:
        """Models, trainers, strategies and labels, for viewers.

        The answer is kept until any of it changes, and looked up in the event loop: a thread would wait for
        those that segment.
        """
        if not self._is_kept(self._state()):
            async with self._making:
                if not self._is_kept(state := self._state()):
                    self._info = state, await run_in_threadpool(self._make_info)
        return Response(self._info[1], media_type="application/json")

    def _state(self) -> object:
        """Equal as long as ``/info/`` is the same; None where only asking the datastore can tell."""
        store = self._app.datastore()
        state = store.state if isinstance(store, LocalFolder) else None
        stats = [trainer.stats() for trainer in self._trainers.values()]
        return None if state is None else (state, self._engines.status(), stats)

    def _is_kept(self, state: object) -> bool:
        return state is not None and state == self._info[0]

    def _make_info(self) -> bytes:
        return bytes(JSONResponse(jsonable_encoder(self._app.info())).body)

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
