"""HTTP answers for the errors of the app, each with a reason that the user can act on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import cast

import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from monailabel.interfaces.exception import MONAILabelException
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response

from lib import errors
from lib.errors import BioSam2Error
from lib.files import storage_errors

logger = logging.getLogger(__name__)

# nginx's status for a client that closed the connection; nobody receives it, but the log shows it.
CLIENT_CLOSED_REQUEST = 499
RETRY_AFTER_S = 5

# The status of the nearest base class counts.
_KINDS: dict[int, tuple[type[BioSam2Error], ...]] = {
    400: (
        errors.PromptError,
        errors.DeviceError,
        errors.SettingsError,
        errors.InfoError,
        errors.TrainingError,
        errors.EvaluationError,
    ),
    403: (errors.ReadOnlyError,),
    404: (errors.ImageNotFoundError,),
    409: (errors.ConflictError,),
    413: (errors.ImageTooLargeError,),
    422: (errors.ImageError, errors.LabelError),
    CLIENT_CLOSED_REQUEST: (errors.Cancelled,),
    500: (BioSam2Error,),
    503: (errors.CheckpointError, errors.BusyError),
    507: (errors.StorageFullError,),
}
_STATUS = {kind: status for status, kinds in _KINDS.items() for kind in kinds}
_OUT_OF_MEMORY = (
    "Out of memory: lower --conf embedding_cache_mb or image_size, send a smaller image, or choose another "
    "device"
)


class ErrorResponses:
    """Exception handlers of the FastAPI application.

    Args:
        private_folders: folders whose paths are removed from the reasons.
    """

    def __init__(self, private_folders: Sequence[str] = ()):
        # Longest first: a folder inside another one would leave its own name otherwise.
        self._private = sorted({folder for folder in private_folders if len(folder) > 1}, key=len)[::-1]

    def add_to(self, server: FastAPI) -> None:
        """Registers the handlers; the server's middleware has to be built afterwards."""
        server.add_exception_handler(BioSam2Error, self._app_error)
        server.add_exception_handler(MONAILabelException, self._monailabel_error)
        server.add_exception_handler(MemoryError, self._out_of_memory)
        server.add_exception_handler(torch.OutOfMemoryError, self._out_of_memory)
        server.add_exception_handler(OSError, self._os_error)
        server.add_exception_handler(RequestValidationError, self._invalid)
        server.add_exception_handler(StarletteHTTPException, self._http_error)

    def answer(self, status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
        """The JSON answer ``{"detail": reason}``, without server paths and unpaired surrogates."""
        for folder in self._private:
            reason = reason.replace(f"{folder}/", "").replace(folder, "")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers = {"Retry-After": str(RETRY_AFTER_S), **(headers or {})}
        return JSONResponse({"detail": reason.encode(errors="replace").decode()}, int(status), headers)

    def _app_error(self, request: Request, error: Exception) -> Response:
        status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
        logger.info("Answering %d: %s", status, error)
        return self.answer(status, str(error))

    def _monailabel_error(self, request: Request, error: Exception) -> Response:
        return self.answer(HTTPStatus.BAD_REQUEST, str(getattr(error, "msg", error)))

    def _out_of_memory(self, request: Request, error: Exception) -> Response:
        logger.error("Out of memory", exc_info=error)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self.answer(HTTPStatus.SERVICE_UNAVAILABLE, _OUT_OF_MEMORY)

    def _os_error(self, request: Request, error: Exception) -> Response:
        """Full disks and read-only folders have a reason; other system errors are defects."""
        try:
            with storage_errors():
                raise error
        except BioSam2Error as found:
            logger.error("Answering a system error", exc_info=error)
            return self._app_error(request, found)

    def _invalid(self, request: Request, error: Exception) -> Response:
        """As FastAPI's own, without repeating the input: it may be no JSON."""
        items = cast(RequestValidationError, error).errors()
        reasons = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in items]
        return self.answer(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(reasons))

    def _http_error(self, request: Request, error: Exception) -> Response:
        error = cast(StarletteHTTPException, error)
        if error.status_code < HTTPStatus.OK or error.status_code in (204, 304):
            return Response(status_code=error.status_code, headers=error.headers)
        headers = dict(error.headers) if error.headers else None
        reason = str(error.detail)
        if reason == HTTPStatus(error.status_code).phrase:
            reason = f"{reason}: {request.method} {request.url.path[:200]}; /docs lists the addresses"
        return self.answer(error.status_code, reason, headers)
