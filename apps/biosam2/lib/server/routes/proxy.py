"""``/proxy/dicom``: OHIF's requests to the DICOM store, forwarded with the store's credentials."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated
from urllib.parse import quote, unquote

import requests
from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException, Request
from fastapi.responses import StreamingResponse
from monailabel.config import settings

from lib.datastores.dicomweb import DicomWebStore, open_session
from lib.errors import BusyError
from lib.server.access import Annotator, AnyUser
from lib.server.error_responses import refuse

logger = logging.getLogger(__name__)

# Headers of a client that the store has to know; headers of the store that concern one connection only.
_FORWARDED = ("accept", "content-type", "accept-encoding")
_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "upgrade", "trailer", "server", "date"}
# A redirect would take the store's password to another host.
_REDIRECTS = range(300, 400)
_NOT_MODIFIED = 304
_CHUNK = 1 << 16
_IN_MEMORY = 1 << 20
# Parts of an address that some servers read as the parent folder, also with parameters: "..;x".
_PARENT = re.compile(r"^\.{1,2}(;.*)?$")


async def _spool(request: Request) -> AsyncIterator[IO[bytes]]:
    """The body as a temporary file: a study may be larger than the memory."""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        async for chunk in request.stream():
            file.write(chunk)
        file.seek(0)
        yield file


_Body = Annotated[IO[bytes], Depends(_spool)]


class ProxyRoutes:
    """The routes to the DICOM store.

    Args:
        store: Store behind this server; None where the studies are a folder.
        on_label: Called with the ids of image and label after a client has stored a segmentation.
    """

    def __init__(self, store: DicomWebStore | None, on_label: Callable[[str, str], None]):
        self._store = store
        self._on_label = on_label
        self._session = open_session(store.name()) if store is not None else None

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/proxy/dicom", include_in_schema=False)
        router.add_api_route("/{path:path}", self.get, methods=["GET"], response_model=None)
        router.add_api_route("/{path:path}", self.post, methods=["POST"], response_model=None)
        return router

    def get(self, path: str, request: Request, user: AnyUser) -> StreamingResponse:
        """Searches and downloads."""
        return self._forward(self._known_store(), "GET", _target(path, "GET"), request)

    def post(
        self, path: str, request: Request, user: Annotator, tasks: BackgroundTasks, body: _Body
    ) -> StreamingResponse:
        """Stores, as OHIF does with a segmentation."""
        store = self._known_store()
        before = store.labels()
        answer = self._forward(store, "POST", _target(path, "POST"), request, body)
        logger.info("%s stored objects in the DICOM store: %d", user.name, answer.status_code)
        # Whatever was stored: later requests must not see the former lists.
        store.forget()
        tasks.add_task(self._report_labels, store, before)
        return answer

    def _known_store(self) -> DicomWebStore:
        if self._store is None:
            reason = "there is no DICOM store behind this server: its studies are a folder"
            refuse(HTTPStatus.NOT_FOUND, reason)
        return self._store

    def _forward(
        self, store: DicomWebStore, method: str, path: str, request: Request, body: IO[bytes] | None = None
    ) -> StreamingResponse:
        session = self._session or open_session(store.name())
        # Without the client's own wish the answer would come in a form that only this server can unpack.
        headers = {"accept-encoding": "identity"}
        headers.update({name: request.headers[name] for name in _FORWARDED if name in request.headers})
        url = f"{store.name().rstrip('/')}/{path}"
        try:
            answer = session.request(
                method,
                url,
                params=request.scope["query_string"],
                headers=headers,
                data=body,
                stream=True,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            logger.warning("%s %s: %s", method, url, error)
            raise _bad_gateway(
                "the DICOM store does not answer: try again, or tell the administrator"
            ) from error
        if answer.status_code in _REDIRECTS and answer.status_code != _NOT_MODIFIED:
            answer.close()
            raise _bad_gateway("the DICOM store answers with a redirect, which is not followed")
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _ONE_CONNECTION}
        return StreamingResponse(_chunks(answer), answer.status_code, kept)

    def _report_labels(self, store: DicomWebStore, before: Mapping[str, str]) -> None:
        with contextlib.suppress(BusyError):
            store.list_images()
        for image_id, label in store.labels().items():
            if before.get(image_id) != label:
                self._on_label(image_id, image_id)


def _bad_gateway(reason: str) -> HTTPException:
    return HTTPException(HTTPStatus.BAD_GATEWAY, detail=reason)


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    """The body as the store sent it, compressed or not."""
    try:
        yield from answer.raw.stream(_CHUNK, decode_content=False)
    finally:
        answer.close()


def _target(path: str, method: str) -> str:
    """The path below the store's DICOMweb root, with the prefixes of the settings.

    Raises:
        HTTPException: 400 for a path that leaves the root, or has control characters.
    """
    plain = path
    while unquote(plain) != plain:
        plain = unquote(plain)
    parts = plain.replace("\\", "/").split("/")
    if any(_PARENT.match(part.strip()) for part in parts) or any(ord(char) < 32 for char in plain):
        reason = f"{path[:200]!r} leaves the DICOM store's own addresses"
        refuse(HTTPStatus.BAD_REQUEST, reason)
    path = quote(path, safe="/:@!$&'()*+,;=~")
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
