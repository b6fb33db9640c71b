"""The edge to HTTP: from the library's errors to answers with a reason that a person can act on."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import torch
from fastapi import HTTPException

from lib.errors import (
    BioSam2Error,
    BusyError,
    CheckpointError,
    ConflictError,
    DeviceError,
    EvaluationError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    InfoError,
    LabelError,
    PromptError,
    ReadOnlyError,
    SettingsError,
    StorageFullError,
    TrainingError,
)
from lib.files import storage_errors

logger = logging.getLogger(__name__)

# MONAI Label makes a folder of a label's tag.
_LABEL_TAG = re.compile(r"[\w-]{1,64}")

# The first that fits counts, so a special kind of error stands before its general one.
_STATUS: tuple[tuple[type[BioSam2Error], HTTPStatus], ...] = (
    (PromptError, HTTPStatus.BAD_REQUEST),
    (DeviceError, HTTPStatus.BAD_REQUEST),
    (SettingsError, HTTPStatus.BAD_REQUEST),
    (TrainingError, HTTPStatus.BAD_REQUEST),
    (EvaluationError, HTTPStatus.BAD_REQUEST),
    (InfoError, HTTPStatus.BAD_REQUEST),
    (ReadOnlyError, HTTPStatus.FORBIDDEN),
    (StorageFullError, HTTPStatus.INSUFFICIENT_STORAGE),
    (ImageNotFoundError, HTTPStatus.NOT_FOUND),
    (ImageTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ConflictError, HTTPStatus.CONFLICT),
    (LabelError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (CheckpointError, HTTPStatus.SERVICE_UNAVAILABLE),
    (BusyError, HTTPStatus.SERVICE_UNAVAILABLE),
)


@contextmanager
def http_errors() -> Iterator[None]:
    """Raises the library's errors as ``HTTPException``: any other kind reaches a client as a bare 500."""
    try:
        with storage_errors():
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


def json_object(text: str, name: str) -> dict[str, Any]:
    """The JSON object of a form field; nothing counts as an empty one.

    Args:
        text: of the field.
        name: of the field, for people.

    Raises:
        HTTPException: 400, where it is none.
    """
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, detail=f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise HTTPException(HTTPStatus.BAD_REQUEST, detail=f"{name} must be a JSON object; it is a {kind}")
    return value


def require_label_tag(tag: Any) -> None:
    """Lets the tag of a label pass, such as ``final``.

    Raises:
        HTTPException: 400, for what can be none.
    """
    if not (isinstance(tag, str) and _LABEL_TAG.fullmatch(tag)):
        reason = f"the label's tag is {tag!r}; it must be a name of letters, digits, _ and -"
        raise HTTPException(HTTPStatus.BAD_REQUEST, detail=reason)
