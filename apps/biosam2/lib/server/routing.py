"""What all routes share: their declaration and role, the server's parts, JSON from clients, and refusals.

JSON is parsed strictly, so that everything accepted can be stored and sent back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import FileResponse
from monailabel.utils.others.generic import get_mime_type
from starlette.types import Receive, Scope, Send

from lib.server.api_keys import Role, User

# Deeper than any client's request by a factor of four; the record and Python's own parser take 400.
MAX_DEPTH = 32
# 60,000 points are 1 MB.
MAX_BODY_BYTES = 16 << 20
_JSON_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


class Routes(APIRouter):
    """Routes whose answers are sent as they are, without a model that they are compared with."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Adds a route; a JSON body is described in the OpenAPI document."""
        if "JsonBody" in endpoint.__annotations__.values():
            options["openapi_extra"] = _JSON_BODY
        super().add_api_route(path, endpoint, **{**options, "response_model": None})


def of_server(name: str) -> Any:
    """A dependency of a route: a part of the server by its name in ``server.state``."""

    # Not a plain function, which FastAPI would call in a thread.
    async def part(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(part)


def refuse(status: HTTPStatus, reason: str) -> NoReturn:
    """Refuses a request.

    Args:
        status: Status of the answer.
        reason: Text for the user, with value, limit and remedy.
    """
    raise HTTPException(status, detail=reason)


def require_known(
    kind: str, name: str, known: Collection[str], params: Mapping[str, Any], key: str = "model"
) -> None:
    """Lets the name in an address pass that is one of those there are, and that params do not contradict.

    Args:
        kind: Kind of what is named, such as ``model``.
        name: Name in the address.
        known: Names that there are.
        params: Body of the request.
        key: Key of the name in ``params``.
    """
    if name not in known:
        refuse(HTTPStatus.NOT_FOUND, f"Unknown {kind} {name[:100]!r} (available: {', '.join(known)})")
    if params.get(key, name) != name:
        other = str(params[key])[:100]
        refuse(HTTPStatus.BAD_REQUEST, f"params name the {kind} {other!r}, the address {name!r}")


def refuse_keys(params: Mapping[str, Any], keys: Collection[str], remedy: str = "leave it out") -> None:
    """Refuses keys that would reach a subprocess, or that the server itself sets."""
    if found := [key for key in keys if key in params]:
        refuse(HTTPStatus.BAD_REQUEST, f"params must not hold {', '.join(found)}: {remedy}")


def refuse_gpus(params: Mapping[str, Any]) -> None:
    """Refuses MONAI Label's option, which would reach the environment of a subprocess."""
    if params.get("gpus", "all") not in ("all", None):
        refuse(HTTPStatus.BAD_REQUEST, "gpus is not an option: choose with device, such as cuda:1")


class _TemporaryFile(FileResponse):
    """A file that is deleted once it was sent, or once a range of it was refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


def file_response(
    path: Path | str, media_type: str | None = None, name: str = "", temporary: bool = False
) -> FileResponse:
    """A file as an answer.

    Args:
        path: File.
        media_type: Media type; that of the file's name by default.
        name: Name for the client; the file's own by default.
        temporary: Whether the file is deleted after it was sent.
    """
    path = Path(path)
    kind = media_type or get_mime_type(str(path))
    return (_TemporaryFile if temporary else FileResponse)(path, media_type=kind, filename=name or path.name)


def require(role: Role) -> Any:
    """A dependency of a route: the sender, who has this role or a higher one.

    Args:
        role: Lowest role that may use the route.
    """

    # Not a plain function, which FastAPI would call in a thread.
    async def check(request: Request) -> User:
        user: User | None = request.scope.get("user")
        if user is None:
            refuse(HTTPStatus.UNAUTHORIZED, "sign in first: send an API key or a token")
        if user.role < role:
            refuse(
                HTTPStatus.FORBIDDEN,
                f"this needs the role {role.monailabel_name}; {user.name!r} has "
                f"{user.role.monailabel_name}: ask an administrator for a key of that role",
            )
        return user

    return Depends(check)


AnyUser = Annotated[User, require(Role.USER)]
Annotator = Annotated[User, require(Role.ANNOTATOR)]
Admin = Annotated[User, require(Role.ADMIN)]


def json_object(text: str | bytes, name: str) -> dict[str, Any]:
    """Parses a JSON object; empty text counts as an empty object.

    Args:
        text: JSON text.
        name: Name of the form field or body, for the error message.
    """
    reason = ""
    try:
        value = json.loads(text) if text.strip() else {}
        # One pass over everything: both NaN and unpaired surrogates raise ValueError.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        if not isinstance(value, dict):
            reason = f"must be a JSON object, not a {type(value).__name__}"
        elif _is_deep(value):
            reason = f"is nested deeper than {MAX_DEPTH} levels"
    except UnicodeEncodeError:
        reason = "holds half a character (an unpaired surrogate such as \\ud83d): rename it"
    except RecursionError:
        reason = f"is not usable JSON: it is nested deeper than {MAX_DEPTH} levels"
    except ValueError as error:
        is_nan = "JSON compliant" in str(error)
        reason = f"is not valid JSON: {error}"
        reason = "holds NaN or an infinite number: leave it out, or send null" if is_nan else reason
    if reason:
        refuse(HTTPStatus.BAD_REQUEST, f"{name} {reason}")
    return dict(value)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [child for children in inner for child in children if isinstance(child, dict | list)]
    return bool(level)


async def _read_body(request: Request) -> dict[str, Any]:
    body = bytearray()
    # A body that is sent in chunks does not tell its length.
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            limit = f"{MAX_BODY_BYTES >> 20} MiB"
            refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the JSON body has more than {limit}, the limit")
    return {} if body.strip() == b"null" else json_object(bytes(body), "the request body")


# Body of a route: a JSON object, also without a Content-Type header, as QuPath sends it.
JsonBody = Annotated[dict[str, Any], Depends(_read_body)]
