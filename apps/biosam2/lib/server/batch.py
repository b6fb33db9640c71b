"""``/batch``: starts, shows and stops a batch."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import Annotated, Any

import anyio
from starlette.concurrency import run_in_threadpool

from lib.batch.runner import BatchRun, BatchRunner, Images, batch_request
from lib.engine.predictor_pool import PredictorPool
from lib.infers.task import EMBED
from lib.server.routing import Admin, AnyUser, JsonBody, Routes, of_server, refuse, refuse_gpus, require_known

_POLL_S = 0.05

routes = Routes(prefix="/batch", tags=["Infer"])
_Runner = Annotated[BatchRunner, of_server("batches")]


@routes.post("/infer/{model}")
async def start(
    user: Admin,
    runner: _Runner,
    models: Annotated[Collection[str], of_server("models")],
    engines: Annotated[PredictorPool, of_server("engines")],
    model: str,
    params: JsonBody,
    images: Images = "all",
    run_sync: bool = False,
) -> Any:
    """Starts a run: the task with the same prompts on every image; an equal request resumes it.

    The model ``embed`` prepares embeddings on disk, with which a click needs no encoder.
    """
    require_known("model", model, [*models, EMBED], params)
    if model == EMBED and engines.disk is None:
        reason = "embeddings are not kept on disk: start the server with --conf embedding_disk_gb 50"
        refuse(HTTPStatus.BAD_REQUEST, reason)
    refuse_gpus(params)
    request, limit = batch_request(model, params)
    run = await run_in_threadpool(runner.start, request, images, limit, user.name)
    if run is None:
        reason = "a batch is running: wait until it ends, or stop it with DELETE /batch/infer"
        refuse(HTTPStatus.TOO_MANY_REQUESTS, reason)
    if run_sync:
        await _end_of(run)
    return run.to_json()


@routes.get("/infer")
@routes.get("/infer/")
def status(user: AnyUser, runner: _Runner, all: bool = False, check_if_running: bool = False) -> Any:
    """The progress of the last run, or of all; 404 where there is none."""
    if all:
        return [run.to_json() for run in runner.runs]
    run = runner.running
    if run is None and not check_if_running and runner.runs:
        run = runner.runs[-1]
    if run is None:
        reason = "no batch is running" if check_if_running else "no batch was started yet"
        refuse(HTTPStatus.NOT_FOUND, reason)
    return run.to_json()


@routes.delete("/infer")
@routes.delete("/infer/")
def stop(user: Admin, runner: _Runner) -> Any:
    """Stops the run at its next slice or tile; what it has saved stays."""
    run = runner.stop()
    return run.to_json() if run else None


async def _end_of(run: BatchRun) -> None:
    """Returns when a run has ended, without blocking the event loop."""
    while run.status == "RUNNING":
        await anyio.sleep(_POLL_S)
