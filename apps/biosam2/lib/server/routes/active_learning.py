"""``/activelearning``: the next image to label."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from monailabel.endpoints.activelearning import sample
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.strategy import ANNOTATOR, CHOICE
from lib.server.access import AnyUser
from lib.server.error_responses import refuse
from lib.server.json_input import JSON_BODY, JsonBody


class NextImageRoutes:
    """The route of the next image.

    Args:
        strategies: Strategies by name.
        signed_in: Whether clients have names of their own: access control is on.
    """

    def __init__(self, strategies: dict[str, Strategy], signed_in: bool):
        self._strategies = strategies
        self._signed_in = signed_in

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/activelearning", tags=["ActiveLearning"])
        router.add_api_route(
            "/{strategy}", self.next_image, methods=["POST"], response_model=None, openapi_extra=JSON_BODY
        )
        return router

    def next_image(self, strategy: str, request: Request, user: AnyUser, params: JsonBody) -> dict[str, Any]:
        """The next image with all that MONAI Label knows of it, or ``{}`` where there is none."""
        if strategy not in self._strategies:
            reason = f"Unknown strategy {strategy!r} (available: {', '.join(self._strategies)})"
            refuse(HTTPStatus.NOT_FOUND, reason)
        # MONAI Label lets params replace the strategy of the address.
        asked = {**params, "strategy": strategy, ANNOTATOR: _annotator(request)}
        if self._signed_in:
            asked["client_id"] = user.name
        answer: dict[str, Any] = sample(strategy, asked, user.name)
        # The info of an image would replace what the strategy said.
        answer.update(answer.pop(CHOICE, {}))
        return answer


def _annotator(request: Request) -> str:
    """One browser on one machine."""
    address = request.client.host if request.client else ""
    return f"{address} {request.headers.get('user-agent', '')}".strip()
