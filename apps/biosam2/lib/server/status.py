"""What the server is and does: ``/info/``, ``/health``, ``/metrics`` and ``/logs``."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import anyio
import prometheus_client
import torch
from fastapi import Query
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from monailabel.interfaces.app import MONAILabelApp
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool

from lib.datastores.local import LocalFolder
from lib.engine.predictor_pool import PredictorPool
from lib.errors import BioSam2Error
from lib.server.routing import Admin, AnyUser, Routes, of_server, refuse
from lib.trainers.task import FineTuneTask

_NVIDIA_SMI_S = 20
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The server's metrics in Prometheus' format.

    Args:
        gauges: Name, description and present value of what is measured when somebody asks.
    """

    def __init__(self, gauges: Iterable[tuple[str, str, Callable[[], float]]] = ()):
        registry = self._registry = prometheus_client.CollectorRegistry()
        histogram = partial(prometheus_client.Histogram, buckets=_BUCKETS, registry=registry)
        counted, timed = ["method", "route", "status"], ["method", "route"]
        self.requests = prometheus_client.Counter("biosam2_requests", "Requests", counted, registry=registry)
        self.seconds = histogram("biosam2_request_seconds", "Time from request to answer", timed)
        stages = "Time of a segmentation by stage: pre reads and parses, infer runs the network, post writes"
        self.stages = histogram("biosam2_stage_seconds", stages, ["model", "stage"])
        prometheus_client.ProcessCollector(registry=registry)
        registry.register(_Gauges(tuple(gauges)))

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return prometheus_client.generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, gauges: tuple[tuple[str, str, Callable[[], float]], ...]):
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, description, value in self._gauges:
            yield GaugeMetricFamily(name, description, value=value())
        if torch.cuda.is_available():
            used = torch.cuda.memory_allocated()
            yield GaugeMetricFamily("biosam2_gpu_memory_bytes", "Memory of the GPU in use", value=used)


class InfoPage:
    """The answer of ``/info/``, kept until what it shows changes.

    It is looked up in the event loop: a thread would wait for those that segment.

    Args:
        app: App that it describes.
        engines: Networks in service.
        trainers: Train tasks by name.
    """

    def __init__(self, app: MONAILabelApp, engines: PredictorPool, trainers: Mapping[str, FineTuneTask]):
        self._app = app
        self._engines = engines
        self._trainers = trainers
        self._state: object = None
        self._content = b""
        self._making = anyio.Lock()

    async def content(self) -> bytes:
        """The answer as JSON."""
        if not self._is_kept(self._present()):
            async with self._making:
                if not self._is_kept(state := self._present()):
                    self._content = await run_in_threadpool(self._make)
                    self._state = state
        return self._content

    def _present(self) -> object:
        """Equal as long as the answer is the same; None where only asking the datastore can tell."""
        store = self._app.datastore()
        state = store.state if isinstance(store, LocalFolder) else None
        stats = [trainer.stats() for trainer in self._trainers.values()]
        return None if state is None else (state, self._engines.status(), stats)

    def _is_kept(self, state: object) -> bool:
        return state is not None and state == self._state

    def _make(self) -> bytes:
        return bytes(JSONResponse(jsonable_encoder(self._app.info())).body)


routes = Routes()


@routes.get("/info/", tags=["App"])
async def info(user: AnyUser, page: Annotated[InfoPage, of_server("info_page")]) -> Response:
    """Models, trainers, strategies and labels, for viewers."""
    return Response(await page.content(), media_type="application/json")


@routes.get("/health", tags=["Others"])
def health(engines: Annotated[PredictorPool, of_server("engines")]) -> Response:
    """200 where clicks can be answered, 503 with a reason where not; says nothing else, to anybody."""
    try:
        engines.weights()
    except BioSam2Error:
        return JSONResponse({"status": "no weights"}, HTTPStatus.SERVICE_UNAVAILABLE)
    return JSONResponse({"status": "ok"})


@routes.get("/metrics", tags=["Others"])
def prometheus(user: AnyUser, metrics: Annotated[Metrics, of_server("metrics")]) -> Response:
    """Metrics in Prometheus' format."""
    return Response(metrics.text(), media_type=prometheus_client.CONTENT_TYPE_LATEST)


@routes.get("/logs/", tags=["Others"])
def logs(
    user: Admin,
    log_file: Annotated[Path, of_server("log_file")],
    lines: Annotated[int, Query(ge=0, le=1_000_000)] = 300,
) -> Response:
    """The last lines of the log; all of it for 0."""
    if not log_file.is_file():
        refuse(HTTPStatus.NOT_FOUND, "this server writes no log file")
    with log_file.open(encoding="utf-8", errors="replace") as file:
        return PlainTextResponse("".join(deque(file, lines or None)))


@routes.get("/logs/gpu", tags=["Others"])
def gpu(user: Admin) -> Response:
    """What nvidia-smi prints."""
    if (program := shutil.which("nvidia-smi")) is None:
        refuse(HTTPStatus.NOT_FOUND, "this server has no nvidia-smi")
    done = subprocess.run([program], capture_output=True, text=True, timeout=_NVIDIA_SMI_S, check=False)
    return PlainTextResponse(done.stdout)
