"""Access control: who sends a request, and which role a route needs."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import secrets
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

import anyio
from fastapi import Depends, Request
from starlette._utils import get_route_path
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lib.errors import BusyError
from lib.scoring.background import SERVER_TOKEN
from lib.server.api_keys import ApiKeys, Role, User
from lib.server.routing import refuse
from lib.server.tokens import InvalidTokenError, TokenVerifier

logger = logging.getLogger(__name__)

COOKIE = "biosam2_session"
# Paths that answer without credentials: signing in, and what a load balancer asks.
PUBLIC_PATHS = frozenset({"/login", "/logout", "/auth/", "/auth/token", "/health", "/favicon.ico"})


# Everybody, where access control is off; MONAI Label has the same name for them.
ANYBODY = User("admin", Role.ADMIN)


class Authenticator:
    """Finds the sender of a request from its credentials.

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
        """The sender of a request; None without valid credentials.

        Raises:
            BusyError: The identity provider does not answer.
        """
        if not self.is_on:
            return ANYBODY
        if (credential := _credential(connection)) is not None:
            return await self.find(credential)
        if (cookie := connection.cookies.get(COOKIE)) is not None:
            return (self._keys and self._keys.from_cookie(cookie)) or await self._from_token(cookie)
        return None

    async def find(self, credential: str) -> User | None:
        """The owner of an API key or a token.

        Raises:
            BusyError: The identity provider does not answer.
        """
        if hmac.compare_digest(credential.encode(), self._own_token.encode()):
            return User("server", Role.ANNOTATOR)
        return (self._keys and self._keys.find(credential)) or await self._from_token(credential)

    async def sign_in(self, name: str, password: str) -> str | None:
        """Exchanges an API key, or name and password of the identity provider, for a cookie's value.

        Raises:
            BusyError: The identity provider does not answer.
        """
        cookie = self._keys.to_cookie(password) if self._keys else None
        return cookie or await self.exchange(name, password)

    async def exchange(self, name: str, password: str) -> str | None:
        """The token for name and password: an API key as password is its own token.

        Raises:
            BusyError: The identity provider does not answer.
        """
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


def require(role: Role) -> Any:
    """A dependency of a route: the sender, who has this role or a higher one.

    Args:
        role: Lowest role that may use the route.
    """

    # Not a plain function, which FastAPI would call in a thread.
    async def check(request: Request) -> User:
        user: User | None = request.scope.get("user")
        if user is None:
            refuse(HTTPStatus.UNAUTHORIZED, "sign in first: send an API key or a token")
        if user.role < role:
            refuse(
                HTTPStatus.FORBIDDEN,
                f"this needs the role {role.monailabel_name}; {user.name!r} has "
                f"{user.role.monailabel_name}: ask an administrator for a key of that role",
            )
        return user

    return Depends(check)


AnyUser = Annotated[User, require(Role.USER)]
Annotator = Annotated[User, require(Role.ANNOTATOR)]
Admin = Annotated[User, require(Role.ADMIN)]


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
