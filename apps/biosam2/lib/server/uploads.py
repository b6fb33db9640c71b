"""Request bodies: bounded in size, and dropped where a client stops sending."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class UploadMiddleware:
    """Refuses bodies that are too large (413) and connections that stall in the middle of one (408).

    Args:
        app: next ASGI application.
        max_bytes: largest body.
        stall_s: seconds without a byte of the body after which the request is dropped.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, stall_s: float):
        self._app = app
        self._max_bytes = max_bytes
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > self._max_bytes:
            answer = JSONResponse({"detail": self._too_large()}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            await answer(scope, receive, send)
            return
        await self._app(scope, self._bounded(receive), send)

    def _bounded(self, receive: Receive) -> Receive:
        size, is_complete = 0, False

        async def bounded() -> Message:
            nonlocal size, is_complete
            if is_complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._stall_s)
            except asyncio.TimeoutError:
                raise HTTPException(
                    HTTPStatus.REQUEST_TIMEOUT,
                    detail=f"no data for {self._stall_s:g} s: send the request again",
                ) from None
            size += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if size > self._max_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail=self._too_large())
            return message

        return bounded

    def _too_large(self) -> str:
        return (
            f"the request is larger than {self._max_bytes >> 20} MiB, the limit of --conf max_upload_mb: "
            "send a smaller file"
        )
