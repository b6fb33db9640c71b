"""JSON from clients: parsed strictly, so that everything accepted can be stored and sent back."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Request

from lib.server.error_responses import refuse

# Deeper than any client's request by a factor of four; the record and Python's own parser take 400.
MAX_DEPTH = 32
# 60,000 points are 1 MB.
MAX_BODY_BYTES = 16 << 20

# OpenAPI schema of a JSON body, for routes that read it with JsonBody.
JSON_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


def json_object(text: str | bytes, name: str) -> dict[str, Any]:
    """Parses a JSON object; empty text counts as an empty object.

    Args:
        text: JSON text.
        name: name of the form field or body, for the error message.

    Raises:
        HTTPException: 400, for anything but an object, for NaN and infinities, for unpaired surrogates (half
            an emoji), and for nesting deeper than 32.
    """
    try:
        value = json.loads(text) if text.strip() else {}
        # One pass over everything: both NaN and unpaired surrogates raise ValueError.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        refuse(
            HTTPStatus.BAD_REQUEST,
            f"{name} holds half a character (an unpaired surrogate such as \\ud83d): rename it",
        )
    except RecursionError:
        refuse(
            HTTPStatus.BAD_REQUEST, f"{name} is not usable JSON: it is nested deeper than {MAX_DEPTH} levels"
        )
    except ValueError as error:
        if "JSON compliant" in str(error):
            refuse(
                HTTPStatus.BAD_REQUEST, f"{name} holds NaN or an infinite number: leave it out, or send null"
            )
        refuse(HTTPStatus.BAD_REQUEST, f"{name} is not valid JSON: {error}")
    if not isinstance(value, dict):
        refuse(HTTPStatus.BAD_REQUEST, f"{name} must be a JSON object, not a {type(value).__name__}")
    if _is_deep(value):
        refuse(HTTPStatus.BAD_REQUEST, f"{name} is nested deeper than {MAX_DEPTH} levels")
    return value


async def _read_body(request: Request) -> dict[str, Any]:
    size = request.headers.get("content-length", "0")
    if size.isdigit() and int(size) > MAX_BODY_BYTES:
        limit = f"{MAX_BODY_BYTES >> 20} MiB"
        refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the JSON body has {size} bytes; the limit is {limit}")
    body = await request.body()
    return {} if body.strip() == b"null" else json_object(body, "the request body")


# Body of a route: a JSON object, also without a Content-Type header, as QuPath sends it.
JsonBody = Annotated[dict[str, Any], Depends(_read_body)]


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
