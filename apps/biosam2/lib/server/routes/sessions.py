"""``/session``: uploads that a client segments several times."""

from __future__ import annotations

import zipfile
from http import HTTPStatus
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

from fastapi import APIRouter, File, UploadFile
from fastapi.responses import FileResponse
from monailabel.utils.others.generic import get_mime_type
from starlette.background import BackgroundTask

from lib.server.access import AnyUser
from lib.server.error_responses import refuse
from lib.server.sessions import SessionStore, UploadSession


class SessionRoutes:
    """The session routes. Parameters have MONAI Label's names.

    Args:
        store: Sessions; None where ``MONAI_LABEL_SESSIONS`` switches them off.
    """

    def __init__(self, store: SessionStore | None):
        self._store = store

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/session", tags=["Session"])
        router.add_api_route("/", self.add, methods=["PUT"], response_model=None)
        router.add_api_route("/{session_id}", self.show, methods=["GET"], response_model=None)
        router.add_api_route("/{session_id}", self.remove, methods=["DELETE"], response_model=None)
        return router

    def add(
        self,
        user: AnyUser,
        files: Annotated[list[UploadFile], File()],
        uncompress: bool = False,
        expiry: int = 0,
    ) -> dict[str, Any]:
        """Keeps one image, the files of a DICOM series, or the content of an archive."""
        sent = [(file.filename or "", file.file) for file in files]
        session = self._enabled().add(sent, uncompress, expiry)
        return {"session_id": session.name, "session_info": session.to_json()}

    def show(self, session_id: str, user: AnyUser, update_ts: bool = False, image: bool = False) -> Any:
        """What is known of a session, or its image; several files come as a zip archive."""
        session = self._known(session_id, update_ts)
        if not image:
            return session.to_json()
        if session.image.is_file():
            path = session.image
            return FileResponse(path, media_type=get_mime_type(str(path)), filename=path.name)
        path = _zip(session)
        return FileResponse(
            path, media_type="application/zip", filename="session.zip", background=BackgroundTask(path.unlink)
        )

    def remove(self, session_id: str, user: AnyUser) -> Any:
        """Removes a session."""
        session = self._known(session_id, update_ts=False)
        self._enabled().remove_session(session_id)
        return session.to_json()

    def _enabled(self) -> SessionStore:
        if self._store is None:
            reason = "sessions are switched off here (MONAI_LABEL_SESSIONS)"
            refuse(HTTPStatus.NOT_ACCEPTABLE, reason)
        return self._store

    def _known(self, session_id: str, update_ts: bool) -> UploadSession:
        session = self._enabled().get_session(session_id, update_ts)
        if session is None:
            reason = f"Unknown session {session_id[:100]!r}: it may have expired, upload again"
            refuse(HTTPStatus.NOT_FOUND, reason)
        return session


def _zip(session: UploadSession) -> Path:
    """All files of a session in a temporary archive, without compression."""
    with NamedTemporaryFile(prefix="biosam2-session-", suffix=".zip", delete=False) as file:
        with zipfile.ZipFile(file, "w") as archive:
            for path in session.files:
                archive.write(path, path.relative_to(session.folder))
        return Path(file.name)
