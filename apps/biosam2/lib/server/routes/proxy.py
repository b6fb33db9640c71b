"""The server's way to the DICOM store, which OHIF takes.

MONAI Label's own drops the query, so that OHIF's list of studies can be neither filtered nor turned over; it
waits for the store in a coroutine, so that one slow answer stops all other requests; and a path with ``..``
leaves the store's DICOMweb root. These routes stand before its own: plain functions, which the server runs in
threads, that hand on what the store sends as it comes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Annotated
from urllib.parse import unquote

import requests
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User

from lib.datastores.client import open_session
from lib.datastores.dicomweb import DicomWebStore
from lib.errors import BusyError

logger = logging.getLogger(__name__)

_User = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]


async def _body(request: Request) -> bytes:
    return await request.body()


_Body = Annotated[bytes, Depends(_body)]

# Of a client's headers, those that the store has to know; of the store's, those that mean one connection.
_FORWARDED = ("accept", "content-type", "accept-encoding")
_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "upgrade", "trailer", "server", "date"}
_CHUNK = 1 << 16


def install(server: FastAPI, store: DicomWebStore, on_label: Callable[[str, str], None]) -> None:
    """Puts the routes before MONAI Label's own.

    Args:
        server: MONAI Label's FastAPI application.
        store: which the clients reach by way of this server.
        on_label: called with the ids of image and label when somebody has stored a segmentation this way.
    """
    routes = _Routes(store, on_label)
    router = APIRouter(prefix="/proxy/dicom", include_in_schema=False)
    router.add_api_route("/{path:path}", routes.get, methods=["GET"])
    router.add_api_route("/{path:path}", routes.post, methods=["POST"])
    server.router.routes[:0] = router.routes


class _Routes:
    """What a client asks for goes to the store, and the store's answer to the client."""

    def __init__(self, store: DicomWebStore, on_label: Callable[[str, str], None]):
        self._store = store
        self._on_label = on_label
        self._session = open_session(store.name())

    def get(self, path: str, request: Request, user: _User) -> StreamingResponse:
        """Searches and downloads."""
        return self._forward("GET", _target(path, "GET"), request)

    def post(
        self, path: str, request: Request, user: _User, tasks: BackgroundTasks, body: _Body
    ) -> StreamingResponse:
        """Stores, as OHIF does with a segmentation."""
        before = self._store.labels()
        answer = self._forward("POST", _target(path, "POST"), request, body)
        # Whatever it was: nobody who asks from now on is told what was before.
        self._store.forget()
        tasks.add_task(self._tell, before)
        return answer

    def _forward(
        self, method: str, path: str, request: Request, body: bytes | None = None
    ) -> StreamingResponse:
        # Without its own wish the client would get what this server can unpack.
        headers = {"accept-encoding": "identity"}
        headers.update({name: request.headers[name] for name in _FORWARDED if name in request.headers})
        url = f"{self._store.name().rstrip('/')}/{path}"
        try:
            answer = self._session.request(
                method, url, params=request.url.query, headers=headers, data=body, stream=True
            )
        except requests.RequestException as error:
            logger.warning("%s %s: %s", method, url, error)
            raise HTTPException(
                HTTPStatus.BAD_GATEWAY,
                detail=f"the DICOM store at {self._store.name()} does not answer: {error}",
            ) from error
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _ONE_CONNECTION}
        return StreamingResponse(_chunks(answer), answer.status_code, kept)

    def _tell(self, before: Mapping[str, str]) -> None:
        with contextlib.suppress(BusyError):
            self._store.list_images()
        for image_id, label in self._store.labels().items():
            if before.get(image_id) != label:
                self._on_label(image_id, image_id)


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    """The body as the store sent it, packed or not."""
    try:
        yield from answer.raw.stream(_CHUNK, decode_content=False)
    finally:
        answer.close()


def _target(path: str, method: str) -> str:
    """The path below the store's DICOMweb root, with the prefixes of the settings.

    Raises:
        HTTPException: 400 for a path that leaves the root.
    """
    plain = path
    while unquote(plain) != plain:
        plain = unquote(plain)
    if ".." in plain.replace("\\", "/").split("/"):
        raise HTTPException(HTTPStatus.BAD_REQUEST, detail=f"{path!r} leaves the DICOM store's own addresses")
    kind, _, rest = path.partition("/")
    if kind not in ("wado", "qido", "stow"):
        return path
    # Some releases of OHIF ask for metadata by the address for searches.
    if method == "POST":
        kind = "stow"
    elif rest.endswith("metadata"):
        kind = "wado"
    prefixes = {
        "wado": settings.MONAI_LABEL_WADO_PREFIX,
        "qido": settings.MONAI_LABEL_QIDO_PREFIX,
        "stow": settings.MONAI_LABEL_STOW_PREFIX,
    }
    prefix = prefixes[kind]
    return f"{prefix}/{rest}" if prefix else rest
