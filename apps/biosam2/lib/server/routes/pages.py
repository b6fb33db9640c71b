"""Web pages: the API's documentation, and the files that pages need."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import monailabel
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from monailabel.utils.others.generic import get_mime_type

from lib.server.access import AnyUser
from lib.server.error_responses import refuse

_STATIC = Path(monailabel.__file__).parent / "endpoints" / "static"
_TITLE = "BioSAM-2"


class PageRoutes:
    """The routes of pages.

    Args:
        server: FastAPI application that is documented.
        static: Folder of MONAI Label's pages.
    """

    def __init__(self, server: FastAPI, static: Path = _STATIC):
        self._server = server
        self._static = static.resolve()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(include_in_schema=False)
        for path, answer in (
            ("/", self.index),
            ("/docs", self.docs),
            ("/openapi.json", self.openapi),
            ("/favicon.ico", self.favicon),
            ("/static/{path:path}", self.static),
        ):
            router.add_api_route(path, answer, methods=["GET"], response_model=None)
        return router

    def index(self, user: AnyUser, request: Request) -> HTMLResponse:
        """The API's documentation, where requests can be tried."""
        return get_swagger_ui_html(openapi_url=_openapi_url(request), title=f"{_TITLE} - APIs")

    def docs(self, user: AnyUser, request: Request) -> HTMLResponse:
        """The API's documentation, for reading."""
        return get_redoc_html(openapi_url=_openapi_url(request), title=_TITLE)

    def openapi(self, user: AnyUser) -> Response:
        """The OpenAPI document."""
        return JSONResponse(self._server.openapi())

    def favicon(self) -> FileResponse:
        """The icon."""
        return FileResponse(self._static / "favicon.ico", media_type="image/x-icon")

    def static(self, user: AnyUser, path: str) -> FileResponse:
        """Files of MONAI Label's pages."""
        return _file(self._find(path))

    def _find(self, path: str) -> Path | None:
        """A file inside the folder."""
        try:
            found = (self._static / path).resolve()
            inside = self._static in found.parents and found.is_file()
        except (OSError, ValueError):
            return None
        return found if inside else None


def _openapi_url(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/openapi.json"


def _file(path: Path | None) -> FileResponse:
    if path is None:
        refuse(HTTPStatus.NOT_FOUND, "there is no such page")
    return FileResponse(path, media_type=get_mime_type(str(path)))
