"""``/scoring``: starts, stops and shows scorings."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from monailabel.endpoints import scoring as monailabel_scoring

from lib.scoring.background import drop_waiting, start
from lib.scoring.base import Scoring
from lib.scoring.registry import ALL
from lib.server.access import Annotator, AnyUser
from lib.server.error_responses import refuse
from lib.server.json_input import JSON_BODY, JsonBody


class ScoringRoutes:
    """The scoring routes: name and options are checked before anything starts.

    Args:
        methods: Scoring methods by name.
    """

    def __init__(self, methods: Mapping[str, Scoring[Any]]):
        self._methods = methods

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/scoring", tags=["Scoring"])
        for path, answer in (("/", self.start_all), ("/{method}", self.start)):
            router.add_api_route(path, answer, methods=["POST"], response_model=None, openapi_extra=JSON_BODY)
        router.add_api_route("/", self.status, methods=["GET"], response_model=None)
        router.add_api_route("/", self.stop, methods=["DELETE"], response_model=None)
        return router

    def start_all(self, user: Annotator, params: JsonBody, run_sync: bool = False) -> dict[str, Any]:
        """Starts all methods, one after the other in one process, after the one that runs."""
        return {ALL: {"result": self._start(ALL, params, run_sync, enqueue=True), "detail": None}}

    def start(self, method: str, user: Annotator, params: JsonBody, run_sync: bool = False) -> Any:
        """Starts one method."""
        return self._start(method, params, run_sync, enqueue=False)

    def status(self, user: AnyUser, all: bool = False, check_if_running: bool = False) -> Any:
        """The last scoring, or all of them; 404 where there is none."""
        return monailabel_scoring.status(all, check_if_running)

    def stop(self, user: Annotator) -> Any:
        """Stops the running scoring, which is the answer, and removes those that wait."""
        drop_waiting()
        return monailabel_scoring.stop()

    def _start(self, method: str, params: dict[str, Any], run_sync: bool, enqueue: bool) -> Any:
        options = self._checked(method, params)
        if run_sync:
            return monailabel_scoring.run_method(method, options, run_sync)
        task = start(method, options, enqueue)
        if task is None:
            reason = "a scoring is running: wait until it ends, or stop it with DELETE /scoring/"
            refuse(HTTPStatus.TOO_MANY_REQUESTS, reason)
        return task

    def _checked(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The options that the process gets: nothing else reaches its environment."""
        if method not in self._methods:
            reason = f"Unknown scoring {method!r} (available: {', '.join(self._methods)})"
            refuse(HTTPStatus.NOT_FOUND, reason)
        if params.get("method", method) != method:
            reason = f"params name the scoring {params['method']!r}, the address {method!r}"
            refuse(HTTPStatus.BAD_REQUEST, reason)
        known = self._methods[method].options(params).model_fields_set
        return {name: params[name] for name in params if name in known}
