"""``/batch``: segments many images in the background."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from lib.infers.automatic import AUTO_TAG
from lib.infers.automatic import NAME as AUTO
from lib.server.access import Admin, AnyUser
from lib.server.batch import BatchRunner, Images
from lib.server.checks import require_label_tag
from lib.server.error_responses import refuse
from lib.server.json_input import JSON_BODY, JsonBody

# Options of MONAI Label's own batch without a meaning here: one image is segmented at a time.
_IGNORED = frozenset({"multi_gpu", "logging", "save_label", "max_workers", "client_id"})
_OPTIONS = frozenset({"label_tag", "max_batch_size", "gpus", "model"})
# What would reach the environment of a process, or name other images than the address does.
_REFUSED = ("bundle_path", "image", "images", "session", "run_id")


class BatchRoutes:
    """The batch routes. Parameters have MONAI Label's names.

    Args:
        runner: Runs the batches.
        models: Names of the tasks that make labels.
    """

    def __init__(self, runner: BatchRunner, models: Collection[str]):
        self._runner = runner
        self._models = models

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/batch", tags=["Infer"])
        router.add_api_route(
            "/infer/{model}", self.start, methods=["POST"], response_model=None, openapi_extra=JSON_BODY
        )
        for path in ("/infer", "/infer/"):
            router.add_api_route(path, self.status, methods=["GET"], response_model=None)
            router.add_api_route(path, self.stop, methods=["DELETE"], response_model=None)
        return router

    async def start(
        self, model: str, user: Admin, params: JsonBody, images: Images = "all", run_sync: bool = False
    ) -> Any:
        """Starts a run: the task with the same prompts on every image; an equal request resumes it."""
        request, limit = self._checked(model, params)
        run = await run_in_threadpool(self._runner.start, request, images, limit, user.name)
        if run is None:
            reason = "a batch is running: wait until it ends, or stop it with DELETE /batch/infer"
            refuse(HTTPStatus.TOO_MANY_REQUESTS, reason)
        if run_sync:
            await run.finished()
        return run.to_json()

    def status(self, user: AnyUser, all: bool = False, check_if_running: bool = False) -> Any:
        """The progress of the last run, or of all; 404 where there is none."""
        if all:
            return [run.to_json() for run in self._runner.runs]
        run = self._runner.running
        if run is None and not check_if_running and self._runner.runs:
            run = self._runner.runs[-1]
        if run is None:
            refuse(
                HTTPStatus.NOT_FOUND,
                "no batch is running" if check_if_running else "no batch was started yet",
            )
        return run.to_json()

    def stop(self, user: Admin) -> Any:
        """Stops the run at its next slice or tile; what it has saved stays."""
        run = self._runner.stop()
        return run.to_json() if run else None

    def _checked(self, model: str, params: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """The request of every image, and the most images."""
        if model not in self._models:
            refuse(HTTPStatus.NOT_FOUND, f"Unknown model {model!r} (available: {', '.join(self._models)})")
        if refused := [name for name in _REFUSED if name in params]:
            refuse(HTTPStatus.BAD_REQUEST, f"params must not hold {', '.join(refused)}")
        if params.get("gpus", "all") not in ("all", None):
            refuse(HTTPStatus.BAD_REQUEST, "gpus is not an option: choose with device, such as cuda:1")
        if params.get("model", model) != model:
            refuse(
                HTTPStatus.BAD_REQUEST, f"params name the model {params['model']!r}, the address {model!r}"
            )
        tag = params.get("label_tag", AUTO_TAG if model == AUTO else "original")
        require_label_tag(tag)
        if tag == "final":
            refuse(
                HTTPStatus.BAD_REQUEST,
                "label_tag 'final' is for labels that people submit and trainings learn from: choose another",
            )
        limit = params.get("max_batch_size") or 0
        if not isinstance(limit, int) or limit < 0:
            refuse(HTTPStatus.BAD_REQUEST, f"max_batch_size is {limit!r}; it must be 0 (all) or more")
        own = {name: value for name, value in params.items() if name not in _IGNORED | _OPTIONS}
        return {**own, "model": model, "label_tag": tag}, limit
