"""What every request passes: host and origin, its id in the log, who sends it, and the size of its body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import logging
import os
import re
import secrets
import socket
import time
import uuid
from collections.abc import Iterable
from contextvars import ContextVar
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import anyio
from prometheus_client import Counter, Histogram
from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.errors import BusyError
from lib.scoring.background import SERVER_TOKEN
from lib.server.api_keys import ApiKeys, Role, User
from lib.server.tokens import InvalidTokenError, TokenVerifier

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

COOKIE = "biosam2_session"
# Paths that answer without credentials: signing in, and what a load balancer asks.
PUBLIC_PATHS = frozenset({"/login", "/logout", "/auth/", "/auth/token", "/health", "/favicon.ico"})
# Everybody, where access control is off; MONAI Label has the same name for them.
ANYBODY = User("admin", Role.ADMIN)

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


class RequestMiddleware:
    """Gives every request an id, logs and counts it, and answers 500 with that id where the app has a defect.

    Args:
        app: next ASGI application.
        requests: Number of requests by method, route and status.
        seconds: Time of the answers by method and route.
    """

    def __init__(self, app: ASGIApp, requests: Counter, seconds: Histogram):
        self._app = app
        self._requests = requests
        self._seconds = seconds

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
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)
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


class Authenticator:
    """Finds the sender of a request from its credentials; ``BusyError`` where the provider does not answer.

    Args:
        keys: API keys; None without ``--conf api_keys``.
        tokens: verifier of an identity provider's tokens; None without ``MONAI_LABEL_AUTH_ENABLE``.
    """

    def __init__(self, keys: ApiKeys | None, tokens: TokenVerifier | None):
        self._keys = keys
        self._tokens = tokens
        # The server's own subprocesses inherit it: a finished training asks for a scoring.
        self._own_token = os.environ[SERVER_TOKEN] = secrets.token_urlsafe(32)

    @property
    def is_on(self) -> bool:
        """Whether clients need credentials."""
        return self._keys is not None or self._tokens is not None

    async def user(self, connection: HTTPConnection) -> User | None:
        """The sender of a request; None without valid credentials."""
        if not self.is_on:
            return ANYBODY
        if (credential := _credential(connection)) is not None:
            return await self.find(credential)
        if (cookie := connection.cookies.get(COOKIE)) is not None:
            return (self._keys and self._keys.from_cookie(cookie)) or await self._from_token(cookie)
        return None

    async def find(self, credential: str) -> User | None:
        """The owner of an API key or a token."""
        if hmac.compare_digest(credential.encode(), self._own_token.encode()):
            return User("server", Role.ANNOTATOR)
        return (self._keys and self._keys.find(credential)) or await self._from_token(credential)

    async def sign_in(self, name: str, password: str) -> str | None:
        """Exchanges an API key, or name and password of the identity provider, for a cookie's value."""
        cookie = self._keys.to_cookie(password) if self._keys else None
        return cookie or await self.exchange(name, password)

    async def exchange(self, name: str, password: str) -> str | None:
        """The token for name and password: an API key as password is its own token."""
        if self._keys and self._keys.find(password):
            return password
        if self._tokens is None or not name:
            return None
        return await anyio.to_thread.run_sync(self._tokens.exchange, name, password)

    async def _from_token(self, token: str) -> User | None:
        if self._tokens is None:
            return None
        try:
            name, roles = await anyio.to_thread.run_sync(self._tokens.verify, token)
        except InvalidTokenError as error:
            logger.warning("Token refused: %s", error)
            return None
        held = [role for role in Role if role.monailabel_name in roles]
        return User(name, max(held)) if held else None


class AccessMiddleware:
    """Answers 401 to everybody without credentials, except on ``PUBLIC_PATHS``; sets ``scope["user"]``.

    Args:
        app: next ASGI application.
        authenticator: finds the sender.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator):
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        connection = HTTPConnection(scope)
        try:
            scope["user"] = await self._authenticator.user(connection)
        except BusyError as error:
            answer: ASGIApp = JSONResponse({"detail": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            is_refused = scope["user"] is None and get_route_path(scope) not in PUBLIC_PATHS
            answer = _unauthorized(scope["method"], connection) if is_refused else self._app
        await answer(scope, receive, send)


def for_requests(stack: ASGIApp, router: ASGIApp) -> ASGIApp:
    """The middleware for HTTP; whatever else a server asks (its end, web sockets) goes to the router."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await (stack if scope["type"] == "http" else router)(scope, receive, send)

    return answer


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


def _credential(connection: HTTPConnection) -> str | None:
    """API key or token: ``X-API-Key``, a Bearer token, or the password of Basic credentials."""
    if key := connection.headers.get("x-api-key"):
        return key
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return None


def _unauthorized(method: str, connection: HTTPConnection) -> Response:
    """The login page for a browser that opens a page; 401 for everything else."""
    if method == "GET" and "text/html" in connection.headers.get("accept", ""):
        root = connection.scope.get("root_path", "")
        target = connection.scope["path"] + (f"?{connection.url.query}" if connection.url.query else "")
        return RedirectResponse(f"{root}/login?next={quote(target)}", HTTPStatus.SEE_OTHER)
    reason = "credentials are missing or not valid: send an API key as X-API-Key, Bearer or Basic password"
    answer = JSONResponse({"detail": reason}, HTTPStatus.UNAUTHORIZED)
    answer.headers["WWW-Authenticate"] = 'Bearer realm="BioSAM-2"'
    # Scripts of a web page must not open the browser's own dialog.
    if "sec-fetch-mode" not in connection.headers:
        answer.headers.append("WWW-Authenticate", 'Basic realm="BioSAM-2"')
    return answer
