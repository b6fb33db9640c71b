"""``/proxy/dicom``: OHIF's requests to the DICOM store, forwarded with the store's credentials."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated
from urllib.parse import quote, unquote

import requests
from fastapi import BackgroundTasks, Depends, Request
from fastapi.responses import StreamingResponse
from monailabel.config import settings

from lib.datastores.dicomweb import DicomWebStore, open_session
from lib.errors import BusyError
from lib.server.checks import Checks
from lib.server.routing import Annotator, AnyUser, Routes, of_server, refuse

logger = logging.getLogger(__name__)

# Headers of a client that the store has to know; headers of the store that concern one connection only.
_FORWARDED = ("accept", "content-type", "accept-encoding")
_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "upgrade", "trailer", "server", "date"}
# The store's cookies, and which web pages may read its answers: this server has its own.
_OF_STORE = ("set-cookie", "access-control-")
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


_session = lru_cache(maxsize=1)(open_session)
_Body = Annotated[IO[bytes], Depends(_spool)]


async def _known_store(checks: Annotated[Checks, of_server("checks")]) -> DicomWebStore:
    if not isinstance(checks.store, DicomWebStore):
        refuse(HTTPStatus.NOT_FOUND, "there is no DICOM store behind this server: its studies are a folder")
    return checks.store


routes = Routes(prefix="/proxy/dicom", include_in_schema=False)
_Store = Annotated[DicomWebStore, Depends(_known_store)]


@routes.get("/{path:path}")
def get(user: AnyUser, store: _Store, request: Request, path: str) -> StreamingResponse:
    """Searches and downloads."""
    return _forward(store, _target(path, "GET"), request)


@routes.post("/{path:path}")
def post(
    user: Annotator,
    store: _Store,
    on_label: Annotated[Callable[[str, str], None], of_server("on_label")],
    request: Request,
    path: str,
    tasks: BackgroundTasks,
    body: _Body,
) -> StreamingResponse:
    """Stores, as OHIF does with a segmentation."""
    before = store.labels()
    answer = _forward(store, _target(path, "POST"), request, body)
    logger.info("%s stored objects in the DICOM store: %d", user.name, answer.status_code)
    # Whatever was stored: later requests must not see the former lists.
    store.forget()
    tasks.add_task(_report_labels, store, before, on_label)
    return answer


def _forward(
    store: DicomWebStore, path: str, request: Request, body: IO[bytes] | None = None
) -> StreamingResponse:
    # Without the client's own wish the answer would come in a form that only this server can unpack.
    headers = {"accept-encoding": "identity"}
    headers.update({name: request.headers[name] for name in _FORWARDED if name in request.headers})
    url, query = f"{store.name().rstrip('/')}/{path}", request.scope["query_string"]
    options = {"params": query, "headers": headers, "data": body, "stream": True, "allow_redirects": False}
    try:
        answer = _session(store.name()).request(request.method, url, **options)
    except requests.RequestException as error:
        logger.warning("%s %s: %s", request.method, url, error)
        reason = "the DICOM store does not answer: try again, or tell the administrator"
        refuse(HTTPStatus.BAD_GATEWAY, reason)
    if answer.status_code in _REDIRECTS and answer.status_code != _NOT_MODIFIED:
        answer.close()
        refuse(HTTPStatus.BAD_GATEWAY, "the DICOM store answers with a redirect, which is not followed")
    kept = {
        name: value
        for name, value in answer.headers.items()
        if name.lower() not in _ONE_CONNECTION and not name.lower().startswith(_OF_STORE)
    }
    return StreamingResponse(_chunks(answer), answer.status_code, kept)


def _report_labels(
    store: DicomWebStore, before: Mapping[str, str], on_label: Callable[[str, str], None]
) -> None:
    """Reports the ids of image and label for each label that is new."""
    with contextlib.suppress(BusyError):
        store.list_images()
    for image_id, label in store.labels().items():
        if before.get(image_id) != label:
            on_label(image_id, image_id)


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    """The body as the store sent it, compressed or not."""
    try:
        yield from answer.raw.stream(_CHUNK, decode_content=False)
    finally:
        answer.close()


def _target(path: str, method: str) -> str:
    """The path below the store's DICOMweb root, with the prefixes of the settings."""
    plain = path
    while unquote(plain) != plain:
        plain = unquote(plain)
    parts = plain.replace("\\", "/").split("/")
    if any(_PARENT.match(part.strip()) for part in parts) or any(ord(char) < 32 for char in plain):
        refuse(HTTPStatus.BAD_REQUEST, f"{path[:200]!r} leaves the DICOM store's own addresses")
    path = quote(path, safe="/:@!$&'()*+,;=~")
    kind, _, rest = path.partition("/")
    if kind not in ("wado", "qido", "stow"):
        return path
    # Some releases of OHIF ask for metadata by the address for searches.
    if method == "POST":
        kind = "stow"
    elif rest.endswith("metadata"):
        kind = "wado"
    prefix = getattr(settings, f"MONAI_LABEL_{kind.upper()}_PREFIX")
    return f"{prefix}/{rest}" if prefix else rest
