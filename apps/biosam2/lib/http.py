"""From the library's errors to HTTP answers with a reason that a person can act on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import torch
from fastapi import HTTPException

from lib.errors import (
    BioSam2Error,
    BusyError,
    CheckpointError,
    DeviceError,
    EvaluationError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    LabelError,
    PromptError,
    SettingsError,
    TrainingError,
)

logger = logging.getLogger(__name__)

# The first that fits counts, so a special kind of error stands before its general one.
_STATUS: tuple[tuple[type[BioSam2Error], HTTPStatus], ...] = (
    (PromptError, HTTPStatus.BAD_REQUEST),
    (DeviceError, HTTPStatus.BAD_REQUEST),
    (SettingsError, HTTPStatus.BAD_REQUEST),
    (TrainingError, HTTPStatus.BAD_REQUEST),
    (EvaluationError, HTTPStatus.BAD_REQUEST),
    (ImageNotFoundError, HTTPStatus.NOT_FOUND),
    (ImageTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (LabelError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (CheckpointError, HTTPStatus.SERVICE_UNAVAILABLE),
    (BusyError, HTTPStatus.SERVICE_UNAVAILABLE),
)


@contextmanager
def http_errors() -> Iterator[None]:
    """Raises the library's errors as ``HTTPException``: any other kind reaches a client as a bare 500."""
    try:
        yield
    except BioSam2Error as error:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        logger.info("Answering %d: %s", status, error)
        raise HTTPException(status, detail=str(error)) from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        logger.exception("Out of memory")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            detail="out of memory; lower --conf embedding_cache_mb or image_size, or choose another device",
        ) from error
