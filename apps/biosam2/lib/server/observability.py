"""Request ids, a structured log line and metrics for every request, and the answer to a defect."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from http import HTTPStatus

import prometheus_client
import torch
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)
requests_log = logging.getLogger("biosam2.requests")

_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

request_id: ContextVar[str] = ContextVar("request_id", default="-")


class Metrics:
    """The server's metrics in Prometheus' format.

    Args:
        gauges: Name, description and present value of what is measured when somebody asks.
    """

    def __init__(self, gauges: Iterable[tuple[str, str, Callable[[], float]]] = ()):
        self._registry = prometheus_client.CollectorRegistry()
        self.requests = prometheus_client.Counter(
            "biosam2_requests", "Requests", ["method", "route", "status"], registry=self._registry
        )
        self.seconds = prometheus_client.Histogram(
            "biosam2_request_seconds",
            "Time from request to answer",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.stages = prometheus_client.Histogram(
            "biosam2_stage_seconds",
            "Time of a segmentation by stage: pre reads and parses, infer runs the network, post writes",
            ["model", "stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        prometheus_client.ProcessCollector(registry=self._registry)
        self._registry.register(_Gauges(tuple(gauges)))

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


class RequestMiddleware:
    """Gives every request an id, logs and counts it, and answers 500 with that id where the app has a defect.

    Args:
        app: next ASGI application.
        metrics: counts the requests.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        sent = Headers(scope=scope).get("x-request-id", "")
        identifier = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex[:16]
        token, start, status = request_id.set(identifier), time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = identifier
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("Unexpected error at %s %s", scope["method"], scope["path"])
            if status:
                raise
            await _internal_error(identifier)(scope, receive, send_with_id)
        finally:
            self._record(scope, identifier, status, time.perf_counter() - start)
            request_id.reset(token)

    def _record(self, scope: Scope, identifier: str, status: int, seconds: float) -> None:
        # The route's pattern, not the path: the number of metrics stays bounded.
        route = getattr(scope.get("route"), "path", "(none)")
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        if route in _QUIET:
            return
        user, client = scope.get("user"), scope.get("client")
        line = {
            "request_id": identifier,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(seconds * 1000, 1),
            "user": user.name if user else None,
            "client": client[0] if client else None,
        }
        requests_log.info("%s", json.dumps(line))


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
# What machines ask every few seconds.
_QUIET = frozenset({"/health", "/metrics"})


class RequestIdFilter(logging.Filter):
    """Puts the id of the current request before every message of a log handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record once; lets every record pass."""
        current = request_id.get()
        if current != "-" and not hasattr(record, "request_id") and record.name != requests_log.name:
            record.request_id = current
            record.msg = f"[{current}] {record.msg}"
        return True


def log_request_ids() -> None:
    """Adds the request id to what the root logger's handlers write."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(item, RequestIdFilter) for item in handler.filters):
            handler.addFilter(RequestIdFilter())


def _internal_error(identifier: str) -> JSONResponse:
    reason = f"Unexpected error. Tell the administrator the request id {identifier}: the log has the reason."
    return JSONResponse({"detail": reason}, HTTPStatus.INTERNAL_SERVER_ERROR)
