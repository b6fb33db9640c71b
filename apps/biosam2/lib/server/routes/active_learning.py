"""The server's route for the next image, guarded.

MONAI Label answers ``POST /activelearning/{strategy}`` in a coroutine, so a download from a DICOM server
stops all other requests; an unknown strategy is a bare 500; and what an image's info says replaces what the
strategy said. This route stands before its own: a plain function, which the server runs in a thread.
"""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from monailabel.config import settings
from monailabel.endpoints import activelearning
from monailabel.endpoints.user.auth import RBAC, User

from lib.activelearning.strategy import ANNOTATOR, CHOICE
from lib.http import http_errors

_User = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]


def install(server: FastAPI, strategies: Collection[str]) -> None:
    """Puts the guarded route before MONAI Label's own.

    Args:
        server: MONAI Label's FastAPI application.
        strategies: names of the app's strategies.
    """
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/activelearning/{strategy}", _Route(strategies).next_sample, methods=["POST"])
    server.router.routes[:0] = router.routes


class _Route:
    """MONAI Label's route for the next image, behind a guard."""

    def __init__(self, strategies: Collection[str]):
        self._strategies = strategies

    def next_sample(
        self, strategy: str, request: Request, user: _User, params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The next image with all that MONAI Label knows of it, or ``{}`` where there is none."""
        if strategy not in self._strategies:
            raise HTTPException(
                HTTPStatus.NOT_FOUND,
                detail=f"there is no strategy {strategy!r}; there is {', '.join(self._strategies)}",
            )
        # MONAI Label lets params replace the strategy of the address.
        asked = {**(params or {}), "strategy": strategy, ANNOTATOR: _annotator(request)}
        if settings.MONAI_LABEL_AUTH_ENABLE:
            asked["client_id"] = user.username
        with http_errors():
            answer: dict[str, Any] = activelearning.sample(strategy, asked, user.username)
        answer.update(answer.pop(CHOICE, {}))
        return answer


def _annotator(request: Request) -> str:
    """One browser on one machine."""
    address = request.client.host if request.client else ""
    return f"{address} {request.headers.get('user-agent', '')}".strip()
