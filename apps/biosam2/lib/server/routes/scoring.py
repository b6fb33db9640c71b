"""The server's routes that start and stop a scoring, guarded.

MONAI Label starts a scoring whatever its name and its options are, and the client hears nothing of what was
wrong with them; and where one is stopped, the next that waits begins. These routes stand before its own: name
and options are checked before anything starts, and ``DELETE`` ends those that wait as well. The status
(``GET``) is asked for as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from monailabel.config import settings
from monailabel.endpoints import scoring as monailabel_scoring
from monailabel.endpoints.user.auth import RBAC, User

from lib.http import http_errors
from lib.scoring.background import drop_waiting, start
from lib.scoring.base import Scoring
from lib.scoring.registry import ALL

_Annotator = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]


def install(server: FastAPI, methods: Mapping[str, Scoring[Any]]) -> None:
    """Puts the guarded routes before MONAI Label's own.

    Args:
        server: MONAI Label's FastAPI application.
        methods: the scoring methods by name; nothing is installed where there is none.
    """
    if not methods:
        return
    routes = _Routes(methods)
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/scoring/", routes.start_all, methods=["POST"])
    router.add_api_route("/scoring/{method}", routes.start, methods=["POST"])
    router.add_api_route("/scoring/", routes.stop, methods=["DELETE"])
    server.router.routes[:0] = router.routes


class _Routes:
    """MONAI Label's routes, behind a check. Their parameters are those of its own."""

    def __init__(self, methods: Mapping[str, Scoring[Any]]):
        self._methods = methods

    def start_all(
        self, user: _Annotator, params: dict[str, Any] | None = None, run_sync: bool = False
    ) -> dict[str, Any]:
        """All methods, one after the other in one process, after whatever runs already."""
        return {ALL: {"result": self._start(ALL, params, run_sync, enqueue=True), "detail": None}}

    def start(
        self, method: str, user: _Annotator, params: dict[str, Any] | None = None, run_sync: bool = False
    ) -> Any:
        """One method."""
        return self._start(method, params, run_sync, enqueue=False)

    def stop(self, user: _Annotator) -> Any:
        """The one that runs, which is the answer, and all that wait."""
        drop_waiting()
        return monailabel_scoring.stop()

    def _start(self, method: str, params: dict[str, Any] | None, run_sync: bool, enqueue: bool) -> Any:
        asked = dict(params or {})
        self._check(method, asked)
        if run_sync:
            with http_errors():
                return monailabel_scoring.run_method(method, asked, run_sync)
        task = start(method, asked, enqueue)
        if task is None:
            raise HTTPException(
                HTTPStatus.TOO_MANY_REQUESTS,
                detail="a scoring runs already; wait for its end, or stop it with DELETE /scoring/",
            )
        return task

    def _check(self, method: str, params: dict[str, Any]) -> None:
        if method not in self._methods:
            known = ", ".join(self._methods)
            raise HTTPException(
                HTTPStatus.NOT_FOUND, detail=f"there is no scoring {method!r}; there is {known}"
            )
        if params.get("method", method) != method:
            raise HTTPException(
                HTTPStatus.BAD_REQUEST,
                detail=f"params name the scoring {params['method']!r}, the address {method!r}",
            )
        with http_errors():
            self._methods[method].options(params)
