"""Web pages: OHIF with the app's toolbar, the API's documentation, and signing in, also of 3D Slicer."""

from __future__ import annotations

import html
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Annotated, Any
from urllib.parse import urlsplit

import monailabel
from fastapi import Form, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from monailabel.config import settings

from lib.server.api_keys import COOKIE_LIFETIME_S
from lib.server.middleware import COOKIE, Authenticator
from lib.server.routing import AnyUser, Routes, of_server, refuse

COMPANION = Path(__file__).resolve().parents[2] / "ohif"
_STATIC = Path(monailabel.__file__).resolve().parent / "endpoints" / "static"
VIEWER = _STATIC / "ohif"
_TITLE = "BioSAM-2"
_FILES = {".js": "text/javascript", ".css": "text/css"}
_ADDED = (
    '<link rel="stylesheet" href="/ohif/companion/companion.css">'
    '<script type="module" src="/ohif/companion/companion.js"></script></head>'
)
# A new version of the app is loaded at once; the browser asks whether the file has changed.
_HEADERS = {"Cache-Control": "no-cache"}
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

documents = Routes(include_in_schema=False)
signing_in = Routes(tags=["Auth"])
_Authenticator = Annotated[Authenticator, of_server("authenticator")]


@documents.get("/")
def index(user: AnyUser, request: Request) -> HTMLResponse:
    """The API's documentation, where requests can be tried."""
    return get_swagger_ui_html(openapi_url=f"{_root(request)}/openapi.json", title=f"{_TITLE} - APIs")


@documents.get("/docs")
def docs(user: AnyUser, request: Request) -> HTMLResponse:
    """The API's documentation, for reading."""
    return get_redoc_html(openapi_url=f"{_root(request)}/openapi.json", title=_TITLE)


@documents.get("/openapi.json")
def openapi(user: AnyUser, request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


@documents.get("/favicon.ico")
def favicon() -> FileResponse:
    """The icon."""
    return FileResponse(_STATIC / "favicon.ico", media_type="image/x-icon")


@documents.get("/static/{path:path}")
def static(user: AnyUser, path: str) -> FileResponse:
    """Files of MONAI Label's pages."""
    if (file := _inside(_STATIC, path)) is None:
        refuse(HTTPStatus.NOT_FOUND, "there is no such page")
    return FileResponse(file)


@documents.get("/ohif/companion/{name}")
def companion_file(user: AnyUser, name: str) -> Response:
    """A file of the toolbar."""
    file = _inside(COMPANION, name)
    if file is None or file.parent != COMPANION or file.suffix not in _FILES:
        refuse(HTTPStatus.NOT_FOUND, f"OHIF's toolbar has no file {name!r}")
    return FileResponse(file, media_type=_FILES[file.suffix], headers=_HEADERS)


@documents.get("/ohif/{path:path}")
def viewer_file(
    user: AnyUser, has_companion: Annotated[bool, of_server("ohif_companion")], path: str
) -> Response:
    """A file of OHIF as MONAI Label ships it, or its page, to which the toolbar is added."""
    file = _inside(VIEWER, path)
    if file is not None and file.name != "index.html":
        return FileResponse(file)
    page = (VIEWER / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("</head>", _ADDED, 1) if has_companion else page, headers=_HEADERS)


@signing_in.get("/login")
def login_page(next: str = "") -> HTMLResponse:
    """The login page."""
    return _page(next)


@signing_in.post("/login")
async def sign_in(
    request: Request,
    authenticator: _Authenticator,
    password: Annotated[str, Form()],
    username: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "",
) -> Response:
    """Sets a cookie that scripts cannot read and other sites cannot send."""
    cookie = await authenticator.sign_in(username, password)
    if cookie is None:
        return _page(next, "The key or password is not valid.", HTTPStatus.UNAUTHORIZED)
    root = _root(request)
    is_https = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    answer = RedirectResponse(_local(next, f"{root}/"), HTTPStatus.SEE_OTHER)
    options: dict[str, Any] = {"max_age": COOKIE_LIFETIME_S, "path": root or "/", "samesite": "lax"}
    answer.set_cookie(COOKIE, cookie, secure=is_https, httponly=True, **options)
    return answer


@signing_in.post("/logout")
def sign_out(request: Request) -> Response:
    """Removes the cookie."""
    answer = RedirectResponse(f"{_root(request)}/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path=_root(request) or "/")
    return answer


@signing_in.get("/auth/")
def is_enabled(authenticator: _Authenticator) -> dict[str, Any]:
    """Whether clients need credentials, as 3D Slicer asks; 404 where not, as MONAI Label answers."""
    if not authenticator.is_on:
        refuse(HTTPStatus.NOT_FOUND, "access control is off: no credentials are needed")
    client_id, realm = settings.MONAI_LABEL_AUTH_CLIENT_ID, settings.MONAI_LABEL_AUTH_REALM_URI
    return {"enabled": True, "client_id": client_id, "realm": realm}


@signing_in.post("/auth/token")
async def token(
    authenticator: _Authenticator, password: Annotated[str, Form()], username: Annotated[str, Form()] = ""
) -> dict[str, Any]:
    """A token for a user name and password; an API key as password is its own token."""
    if not authenticator.is_on:
        return {"access_token": None, "token_type": None}
    found = await authenticator.exchange(username, password)
    if found is None:
        refuse(HTTPStatus.UNAUTHORIZED, "the key or password is not valid")
    return {"access_token": found, "token_type": "bearer"}


@signing_in.get("/auth/token/valid")
def valid(user: AnyUser) -> dict[str, Any]:
    """Name and role of the sender."""
    return {"username": user.name, "roles": [user.role.monailabel_name]}


def _root(request: Request) -> str:
    """Path prefix of a proxy."""
    return str(request.scope.get("root_path", ""))


def _inside(folder: Path, path: str) -> Path | None:
    """A file inside a folder; None for any other."""
    try:
        found = (folder / path).resolve()
        return found if folder in found.parents and found.is_file() else None
    except (OSError, ValueError):
        # Too long, or with a null character.
        refuse(HTTPStatus.NOT_FOUND, "no file can have this name")


def _page(target: str, error: str = "", status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    text = _PAGE.substitute(target=html.escape(target), error=html.escape(error))
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def _local(target: str, first: str) -> str:
    """An address of this server; anything else becomes its first page."""
    parts = urlsplit(target)
    is_local = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_local and not parts.scheme and not parts.netloc else first
