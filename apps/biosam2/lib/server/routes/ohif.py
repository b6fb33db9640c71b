"""OHIF as MONAI Label ships it, with the app's annotation toolbar added to its page."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response
from monailabel.endpoints import ohif as monailabel_ohif

from lib.server.access import AnyUser
from lib.server.error_responses import refuse

COMPANION = Path(__file__).resolve().parents[3] / "ohif"
VIEWER = Path(monailabel_ohif.__file__).resolve().parent / "static" / "ohif"
_FILES = {".js": "text/javascript", ".css": "text/css"}
_ADDED = (
    '<link rel="stylesheet" href="/ohif/companion/companion.css">'
    '<script type="module" src="/ohif/companion/companion.js"></script></head>'
)
# A new version of the app is loaded at once; the browser asks whether the file has changed.
_HEADERS = {"Cache-Control": "no-cache"}


def ohif_router(companion: bool) -> APIRouter:
    """Routes of the viewer.

    Args:
        companion: Whether the page gets the toolbar (``--conf ohif_companion``).
    """
    router = APIRouter(prefix="/ohif", include_in_schema=False)

    def companion_file(user: AnyUser, name: str) -> Response:
        path = COMPANION / name
        if path.suffix not in _FILES or path.name not in {file.name for file in COMPANION.iterdir()}:
            refuse(HTTPStatus.NOT_FOUND, f"OHIF's toolbar has no file {name!r}")
        return FileResponse(path, media_type=_FILES[path.suffix], headers=_HEADERS)

    def viewer_file(user: AnyUser, path: str) -> Response:
        try:
            file = (VIEWER / path).resolve()
            is_asset = path and file.is_file() and VIEWER in file.parents and file.name != "index.html"
        except (OSError, ValueError) as error:
            # No file can have this name: too long, or with a null character.
            raise HTTPException(HTTPStatus.NOT_FOUND, detail="OHIF has no such file") from error
        if is_asset:
            return FileResponse(file)
        page = (VIEWER / "index.html").read_text(encoding="utf-8")
        return HTMLResponse(page.replace("</head>", _ADDED, 1) if companion else page, headers=_HEADERS)

    router.add_api_route("/companion/{name}", companion_file, methods=["GET"])
    router.add_api_route("/{path:path}", viewer_file, methods=["GET"])
    return router
