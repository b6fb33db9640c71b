"""Checks of a request's web page and host name: against other sites and DNS rebinding."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What a browser may do with every answer of the server.
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Referrer-Policy": "same-origin",
}


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

    def _preflight(self, method: str, headers: Headers) -> Response | None:
        if method != "OPTIONS" or "access-control-request-method" not in headers:
            return None
        return Response(
            status_code=HTTPStatus.NO_CONTENT,
            headers={
                "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
                "Access-Control-Allow-Headers": headers.get("access-control-request-headers", ""),
                "Access-Control-Max-Age": "600",
            },
        )

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
