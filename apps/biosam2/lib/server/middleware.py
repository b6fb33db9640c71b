"""What every request passes: host and origin, the size of its body, its id in the log, and the metrics."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

import prometheus_client
import torch
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)
requests_log = logging.getLogger("biosam2.requests")

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
# What machines ask every few seconds.
_QUIET = frozenset({"/health", "/metrics"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What a browser may do with every answer of the server.
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Referrer-Policy": "same-origin",
}
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

request_id: ContextVar[str] = ContextVar("request_id", default="-")


class OriginMiddleware:
    """Refuses foreign host names, and foreign web pages wherever something changes; answers CORS requests.

    A browser names the page that sends a request in ``Origin``. Programs (3D Slicer, QuPath, scripts) send no
    ``Origin`` and are not affected. Pages of the server itself and of the allowed origins may do everything.
    Other pages cannot change anything, and cannot read answers, since these carry no CORS headers.

    The ``Host`` header must be an IP address, localhost or a name of this machine: a name of an attacker that
    was made to point to this server (DNS rebinding) is none of them.

    Args:
        app: next ASGI application.
        allowed_origins: origins such as ``https://viewer.example.org``.
        allowed_hosts: host names besides IP addresses, localhost and the machine's own names.
    """

    def __init__(self, app: ASGIApp, allowed_origins: Iterable[str] = (), allowed_hosts: Iterable[str] = ()):
        self._app = app
        self._origins = {_origin(text) for text in allowed_origins}
        self._hosts = {name.lower().rstrip(".") for name in allowed_hosts} | own_names()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        headers = Headers(scope=scope)
        answer = self._refusal(scope["method"], headers) or self._preflight(scope["method"], headers)
        cors = self._cors_headers(headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                if self._origins:
                    found.add_vary_header("Origin")
                for name, value in {**_SECURITY_HEADERS, **cors}.items():
                    found.setdefault(name, value)
            await send(message)

        await (answer or self._app)(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_own_host(host):
            return _refuse(
                f"The host name {host[:100]!r} is not this server's: use its IP address, or start it with "
                "--conf allowed_hosts NAME"
            )
        if method in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        if origin is None and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            origin = "(another site)"
        if origin is None or self._is_own(origin, host) or self._is_allowed(origin):
            return None
        return _refuse(
            f"Web pages of {origin[:100]!r} may not use this server: start it with --conf "
            "allowed_origins ORIGIN"
        )

    @staticmethod
    def _preflight(method: str, headers: Headers) -> Response | None:
        if method != "OPTIONS" or "access-control-request-method" not in headers:
            return None
        allowed = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", ""),
            "Access-Control-Max-Age": "600",
        }
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=allowed)

    def _cors_headers(self, headers: Headers) -> dict[str, str]:
        origin = headers.get("origin", "")
        if not self._is_allowed(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Content-Disposition, X-Request-ID",
        }

    def _is_allowed(self, origin: str) -> bool:
        return bool(origin) and _origin(origin) in self._origins

    @staticmethod
    def _is_own(origin: str, host: str) -> bool:
        """Whether a page was loaded from this host and port; behind a proxy the scheme may differ."""
        scheme, name, port = _origin(origin)
        own_name, own_port = split_host(host)
        if scheme not in _DEFAULT_PORTS or name != own_name:
            return False
        return port == (_DEFAULT_PORTS[scheme] if own_port is None else own_port)

    def _is_own_host(self, host: str) -> bool:
        name, _ = split_host(host)
        # HTTP/1.0 has no Host header; browsers always send one.
        if not host or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class UploadMiddleware:
    """Refuses bodies that are too large (413) and connections that stall in the middle of one (408).

    Args:
        app: next ASGI application.
        max_bytes: largest body.
        stall_s: seconds without a byte of the body after which the request is dropped.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, stall_s: float):
        self._app = app
        self._max_bytes = max_bytes
        self._stall_s = stall_s
        self._too_large = (
            f"the request is larger than {max_bytes >> 20} MiB, the limit of --conf max_upload_mb: "
            "send a smaller file"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > self._max_bytes:
            answer = JSONResponse({"detail": self._too_large}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            await answer(scope, receive, send)
        else:
            await self._app(scope, self._bounded(receive), send)

    def _bounded(self, receive: Receive) -> Receive:
        size, is_complete = 0, False

        async def bounded() -> Message:
            nonlocal size, is_complete
            if is_complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._stall_s)
            except asyncio.TimeoutError:
                reason = f"no data for {self._stall_s:g} s: send the request again"
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, reason) from None
            size += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if size > self._max_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large)
            return message

        return bounded


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
            reason = (
                f"Unexpected error. Tell the administrator the request id {identifier}: the log says why."
            )
            answer = JSONResponse({"detail": reason}, HTTPStatus.INTERNAL_SERVER_ERROR)
            await answer(scope, receive, send_with_id)
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
        line = {
            "request_id": identifier,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(seconds * 1000, 1),
            "user": getattr(scope.get("user"), "name", None),
            "client": (scope.get("client") or [None])[0],
        }
        requests_log.info("%s", json.dumps(line))


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


def own_names() -> set[str]:
    """Localhost and the names that this machine has, in lower case."""
    name = socket.gethostname().lower()
    short = name.split(".")[0]
    return {"localhost", name, short, f"{short}.local"}


def split_host(host: str) -> tuple[str, int | None]:
    """Name (lower case, without brackets) and port of a Host header; ("", None) if malformed."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", None


def _origin(text: str) -> tuple[str, str, int | None]:
    """Scheme, host name and port of an origin; the default port where it names none."""
    scheme, _, host = text.lower().rstrip("/").partition("://")
    name, port = split_host(host)
    return scheme, name, _DEFAULT_PORTS.get(scheme) if port is None else port


def _refuse(reason: str) -> Response:
    logger.warning("Answering 403: %s", reason)
    return JSONResponse({"detail": reason.encode(errors="replace").decode()}, HTTPStatus.FORBIDDEN)
