"""``/login`` for browsers, and ``/auth`` for 3D Slicer."""

from __future__ import annotations

import html
from http import HTTPStatus
from string import Template
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from monailabel.config import settings

from lib.server.access import COOKIE, AnyUser, Authenticator
from lib.server.api_keys import COOKIE_LIFETIME_S
from lib.server.error_responses import refuse

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in - BioSAM-2</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:16px/1.5 sans-serif;margin:15vh auto;max-width:22rem;padding:0 1rem}
input,button{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;margin:.25rem 0 1rem}
.error{color:#a00}</style></head>
<body><h1>BioSAM-2</h1><p class="error">$error</p>
<form method="post"><input type="hidden" name="next" value="$target">
<label>User name (empty for an API key)<input name="username" autocomplete="username"></label>
<label>API key or password
<input name="password" type="password" autocomplete="current-password" required autofocus></label>
<button>Sign in</button></form></body></html>
""")


class SignInRoutes:
    """The routes that turn an API key or a password into a cookie or a token.

    Args:
        authenticator: Knows keys and tokens.
    """

    def __init__(self, authenticator: Authenticator):
        self._authenticator = authenticator

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["Auth"])
        for method, path, answer in (
            ("GET", "/login", self.page),
            ("POST", "/login", self.sign_in),
            ("POST", "/logout", self.sign_out),
            ("GET", "/auth/", self.is_enabled),
            ("POST", "/auth/token", self.token),
            ("GET", "/auth/token/valid", self.valid),
        ):
            router.add_api_route(path, answer, methods=[method], response_model=None)
        return router

    def page(self, next: str = "") -> HTMLResponse:
        """The login page."""
        return _page(next)

    async def sign_in(
        self,
        request: Request,
        password: Annotated[str, Form()],
        username: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "",
    ) -> Response:
        """Sets a cookie that scripts cannot read and other sites cannot send."""
        cookie = await self._authenticator.sign_in(username, password)
        if cookie is None:
            return _page(next, "The key or password is not valid.", HTTPStatus.UNAUTHORIZED)
        root = request.scope.get("root_path", "")
        answer = RedirectResponse(_local(next, f"{root}/"), HTTPStatus.SEE_OTHER)
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=COOKIE_LIFETIME_S,
            path=root or "/",
            secure=_is_https(request),
            httponly=True,
            samesite="lax",
        )
        return answer

    def sign_out(self, request: Request) -> Response:
        """Removes the cookie."""
        root = request.scope.get("root_path", "")
        answer = RedirectResponse(f"{root}/login", HTTPStatus.SEE_OTHER)
        answer.delete_cookie(COOKIE, path=root or "/")
        return answer

    def is_enabled(self) -> dict[str, Any]:
        """Whether clients need credentials, as 3D Slicer asks; 404 where not, as MONAI Label answers."""
        if not self._authenticator.is_on:
            refuse(HTTPStatus.NOT_FOUND, "access control is off: no credentials are needed")
        client_id, realm = settings.MONAI_LABEL_AUTH_CLIENT_ID, settings.MONAI_LABEL_AUTH_REALM_URI
        return {"enabled": True, "client_id": client_id, "realm": realm}

    async def token(
        self, password: Annotated[str, Form()], username: Annotated[str, Form()] = ""
    ) -> dict[str, Any]:
        """A token for a user name and password; an API key as password is its own token."""
        if not self._authenticator.is_on:
            return {"access_token": None, "token_type": None}
        token = await self._authenticator.exchange(username, password)
        if token is None:
            refuse(HTTPStatus.UNAUTHORIZED, "the key or password is not valid")
        return {"access_token": token, "token_type": "bearer"}

    def valid(self, user: AnyUser) -> dict[str, Any]:
        """Name and role of the sender."""
        return {"username": user.name, "roles": [user.role.monailabel_name]}


def _page(target: str, error: str = "", status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    text = _PAGE.substitute(target=html.escape(target), error=html.escape(error))
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def _local(target: str, first: str) -> str:
    """An address of this server; anything else becomes its first page."""
    parts = urlsplit(target)
    is_local = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_local and not parts.scheme and not parts.netloc else first


def _is_https(request: Request) -> bool:
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
