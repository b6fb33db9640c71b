"""``/activelearning`` and ``/scoring``: the next image to label, and the scores that it is chosen by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Request
from monailabel.endpoints import scoring as monailabel_scoring
from monailabel.endpoints.activelearning import sample
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.strategy import ANNOTATOR, CHOICE
from lib.scoring.background import drop_waiting, start
from lib.scoring.base import Scoring
from lib.scoring.registry import ALL
from lib.server.middleware import Authenticator
from lib.server.routing import Annotator, AnyUser, JsonBody, Routes, of_server, refuse, require_known

routes = Routes()
_Methods = Annotated[Mapping[str, Scoring[Any]], of_server("scoring_methods")]


@routes.post("/activelearning/{strategy}", tags=["ActiveLearning"])
def next_image(
    user: AnyUser,
    strategies: Annotated[Mapping[str, Strategy], of_server("strategies")],
    authenticator: Annotated[Authenticator, of_server("authenticator")],
    on_opening: Annotated[Callable[[str, str], None], of_server("on_opening")],
    strategy: str,
    request: Request,
    params: JsonBody,
) -> dict[str, Any]:
    """The next image with all that MONAI Label knows of it, or ``{}`` where there is none."""
    require_known("strategy", strategy, strategies, {})
    # One browser on one machine, unless people sign in with names of their own.
    address = request.client.host if request.client else ""
    annotator = f"{address} {request.headers.get('user-agent', '')}".strip()
    # MONAI Label lets params replace the strategy of the address.
    asked = {**params, "strategy": strategy, ANNOTATOR: annotator}
    if authenticator.is_on:
        asked["client_id"] = user.name
    answer: dict[str, Any] = sample(strategy, asked, user.name)
    # The info of an image would replace what the strategy said.
    answer.update(answer.pop(CHOICE, {}))
    if "id" in answer:
        on_opening(user.name, answer["id"])
    return answer


@routes.post("/scoring/", tags=["Scoring"])
def score_all(user: Annotator, methods: _Methods, params: JsonBody, run_sync: bool = False) -> dict[str, Any]:
    """Starts all methods, one after the other in one process, after the one that runs."""
    return {ALL: {"result": _start(methods, ALL, params, run_sync, enqueue=True), "detail": None}}


@routes.post("/scoring/{method}", tags=["Scoring"])
def score(user: Annotator, methods: _Methods, method: str, params: JsonBody, run_sync: bool = False) -> Any:
    """Starts one method."""
    return _start(methods, method, params, run_sync, enqueue=False)


@routes.get("/scoring/", tags=["Scoring"])
def status(user: AnyUser, all: bool = False, check_if_running: bool = False) -> Any:
    """The last scoring, or all of them; 404 where there is none."""
    return monailabel_scoring.status(all, check_if_running)


@routes.delete("/scoring/", tags=["Scoring"])
def stop(user: Annotator) -> Any:
    """Stops the running scoring, which is the answer, and removes those that wait."""
    drop_waiting()
    return monailabel_scoring.stop()


def _start(methods: _Methods, method: str, params: dict[str, Any], run_sync: bool, enqueue: bool) -> Any:
    """Starts a scoring; known options alone reach the environment of its process."""
    require_known("scoring", method, methods, params, key="method")
    known = methods[method].options(params).model_fields_set
    options = {name: params[name] for name in params if name in known}
    if run_sync:
        return monailabel_scoring.run_method(method, options, run_sync)
    task = start(method, options, enqueue)
    if task is None:
        reason = "a scoring is running: wait until it ends, or stop it with DELETE /scoring/"
        refuse(HTTPStatus.TOO_MANY_REQUESTS, reason)
    return task
