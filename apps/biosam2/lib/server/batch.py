"""``/batch``: segments many images in the background, resumable, cancellable, behind clicks."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from monailabel.interfaces.datastore import Datastore
from starlette.concurrency import run_in_threadpool

from lib.datastores.label_entries import AUTOMATIC
from lib.engine.predictor_pool import PredictorPool
from lib.engine.runtime import Cancellation, InteractivePriority
from lib.errors import BioSam2Error, Cancelled
from lib.infers.automatic import AUTO_TAG
from lib.infers.automatic import NAME as AUTO
from lib.infers.label_merging import is_persons_label, save_automatic_label
from lib.infers.task import EMBED
from lib.server.routing import (
    Admin,
    AnyUser,
    JsonBody,
    Routes,
    of_server,
    refuse,
    refuse_gpus,
    refuse_keys,
    require_known,
    require_label_tag,
)

logger = logging.getLogger(__name__)

Images = Literal["all", "labeled", "unlabeled"]
# Key of a label's info with the fingerprint of the run that made it.
BATCH = "batch"
_TIME = "%Y-%m-%d %H:%M:%S"
_DETAILS = 20
_KEPT_RUNS = 20
_POLL_S = 0.05
# Options of MONAI Label's own batch without a meaning here: one image is segmented at a time.
_IGNORED = frozenset({"multi_gpu", "logging", "save_label", "max_workers", "client_id"})
_OPTIONS = frozenset({"label_tag", "max_batch_size", "gpus", "model"})
# What would reach the environment of a process, or name other images than the address does.
_REFUSED = ("bundle_path", "image", "images", "session", "run_id")

Infer = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class BatchRun:
    """One run; ``to_json`` has MONAI Label's names.

    Attributes:
        request: Model, images, tag and prompts.
        user: Name of the person who started it.
        status: ``RUNNING``, ``DONE``, ``ERROR`` or ``STOPPED``.
        total: Number of images.
        done: Images segmented and saved.
        skipped: Images with a label that stays: of a person, or of an earlier run with the same request.
        failed: Images without a result; ``details`` has the reasons.
    """

    request: dict[str, Any]
    user: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "RUNNING"
    start_ts: str = field(default_factory=lambda: datetime.now().strftime(_TIME))
    end_ts: str | None = None
    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    details: deque[str] = field(default_factory=lambda: deque(maxlen=_DETAILS))
    cancellation: Cancellation = field(default_factory=Cancellation)

    @property
    def fingerprint(self) -> str:
        """Equal for runs with the same model and prompts."""
        text = json.dumps({**self.request, "images": None}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    async def finished(self) -> None:
        """Returns when the run has ended, without blocking the event loop."""
        while self.status == "RUNNING":
            await anyio.sleep(_POLL_S)

    def note(self, line: str) -> None:
        """Adds a line to the log and to ``details``."""
        logger.info("Batch %s: %s", self.id, line)
        self.details.append(line)

    def to_json(self) -> dict[str, Any]:
        """What clients see."""
        facts = {name: getattr(self, name) for name in ("id", "status", "request", "user", "start_ts")}
        progress = {name: getattr(self, name) for name in ("total", "done", "skipped", "failed")}
        end = {"end_ts": self.end_ts} if self.end_ts else {}
        return {**facts, **end, "progress": progress, "details": list(self.details)}


class BatchRunner:
    """Runs one batch at a time in a thread of its own.

    The result of each image is saved at once under the run's tag, so the same request again goes on where a
    stopped or killed run ended. Labels that a person made are never replaced.

    Args:
        infer: Segments one image, as ``MONAILabelApp.infer``.
        datastore: Datastore of the images.
        priority: Makes the run wait while somebody clicks.
    """

    def __init__(self, infer: Infer, datastore: Datastore, priority: InteractivePriority):
        self._infer = infer
        self._datastore = datastore
        self._priority = priority
        self._lock = threading.Lock()
        self._runs: deque[BatchRun] = deque(maxlen=_KEPT_RUNS)

    @property
    def runs(self) -> list[BatchRun]:
        """The latest runs, oldest first."""
        return list(self._runs)

    @property
    def running(self) -> BatchRun | None:
        """The run that goes on now."""
        return next((run for run in self.runs if run.status == "RUNNING"), None)

    def start(self, request: Mapping[str, Any], images: Images, limit: int, user: str) -> BatchRun | None:
        """Starts a run.

        Args:
            request: ``model``, ``label_tag`` and the prompts, the same for all images.
            images: All images, or those with or without a label that a person made.
            limit: Most images; 0 for all.
            user: Name of the person.

        Returns:
            The run; None while another one goes on.
        """
        run = BatchRun({**request, "images": images}, user)
        with self._lock:
            if self.running is not None:
                return None
            self._runs.append(run)
        threading.Thread(target=self.execute, args=(run, images, limit), name="batch", daemon=True).start()
        return run

    def stop(self) -> BatchRun | None:
        """Stops the run at its next slice or tile; None where none goes on."""
        run = self.running
        if run is not None:
            run.cancellation.cancel()
        return run

    def execute(self, run: BatchRun, images: Images, limit: int) -> None:
        """Segments the images of a run, in the calling thread."""
        try:
            with run.cancellation.applied():
                self._segment_all(run, images, limit)
            status = "ERROR" if run.failed and not run.done else "DONE"
        except Cancelled:
            run.note("stopped")
            status = "STOPPED"
        except Exception as error:
            logger.exception("Batch %s ended", run.id)
            known = isinstance(error, BioSam2Error)
            run.note(f"ended: {error}" if known else "ended by a defect: see the log")
            status = "ERROR"
        run.end_ts = datetime.now().strftime(_TIME)
        run.status = status

    def _segment_all(self, run: BatchRun, images: Images, limit: int) -> None:
        tag = run.request.get("label_tag")
        chosen = self._choose(images)
        chosen = chosen[:limit] if limit else chosen
        run.total = len(chosen)
        run.note(f"{run.total} images, " + (f"labels are saved as {tag!r}" if tag else "no labels"))
        for image in chosen:
            if run.cancellation.is_requested:
                raise Cancelled("the run was stopped")
            if tag and (reason := self._stays(run, image, tag)):
                run.skipped += 1
                run.note(f"{image}: {reason}")
                continue
            self._priority.give_way()
            self._segment(run, image, tag)

    def _choose(self, images: Images) -> list[str]:
        everything = sorted(self._datastore.list_images())
        if images == "all":
            return everything
        labelled = [image for image in everything if self._has_persons_label(image)]
        return labelled if images == "labeled" else sorted(set(everything) - set(labelled))

    def _has_persons_label(self, image: str) -> bool:
        tags = self._datastore.get_labels_by_image_id(image)
        return any(is_persons_label(self._datastore, image, tag) for tag in tags)

    def _stays(self, run: BatchRun, image: str, tag: str) -> str | None:
        """Why the label of an image is kept; None where it may be made."""
        if is_persons_label(self._datastore, image, tag):
            return "has a label that a person made"
        if tag not in self._datastore.get_labels_by_image_id(image):
            return None
        info = self._datastore.get_label_info(image, tag) or {}
        return "done by an earlier run" if info.get(BATCH) == run.fingerprint else None

    def _segment(self, run: BatchRun, image: str, tag: str | None) -> None:
        file: str | None = None
        try:
            answer = self._infer({**run.request, "image": image, "save_label": False})
            file, done = answer["file"], "{encoded} of {slices} slices encoded"
            if tag:
                if file is None:
                    raise BioSam2Error(f"{run.request['model']} makes no label file")
                info = {"model": run.request["model"], "params": answer["params"], "user": run.user}
                more = {AUTOMATIC: True, BATCH: run.fingerprint}
                save_automatic_label(self._datastore, image, Path(file), tag, {**info, **more})
                done = "saved"
            run.done += 1
            what = done.format_map(answer["params"])
            run.note(f"{image}: {what} ({run.done + run.skipped + run.failed} of {run.total})")
        except Cancelled:
            raise
        except (BioSam2Error, OSError, MemoryError) as error:
            run.failed += 1
            run.note(f"{image}: {error}")
        finally:
            if file is not None:
                Path(file).unlink(missing_ok=True)


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
    request, limit = _checked(model, params)
    run = await run_in_threadpool(runner.start, request, images, limit, user.name)
    if run is None:
        reason = "a batch is running: wait until it ends, or stop it with DELETE /batch/infer"
        refuse(HTTPStatus.TOO_MANY_REQUESTS, reason)
    if run_sync:
        await run.finished()
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


def _checked(model: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The request of every image, and the most images."""
    refuse_keys(params, _REFUSED)
    refuse_gpus(params)
    tag = params.get("label_tag", AUTO_TAG if model == AUTO else "original")
    require_label_tag(tag)
    if tag == "final":
        reason = "label_tag 'final' is for labels that people submit and trainings learn from: choose another"
        refuse(HTTPStatus.BAD_REQUEST, reason)
    limit = params.get("max_batch_size") or 0
    if not isinstance(limit, int) or limit < 0:
        refuse(HTTPStatus.BAD_REQUEST, f"max_batch_size is {limit!r}; it must be 0 (all) or more")
    own = {name: value for name, value in params.items() if name not in _IGNORED | _OPTIONS}
    more = {"since": time.time()} if model == EMBED else {"label_tag": tag}
    return {**own, "model": model, **more}, limit
