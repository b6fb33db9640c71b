"""Runs a task on many images: resumable, cancellable, and never over a label that a person made."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from monailabel.interfaces.datastore import Datastore

from lib.datastores.label_entries import AUTOMATIC
from lib.engine.runtime import Cancellation, InteractivePriority
from lib.errors import BioSam2Error, Cancelled, PromptError
from lib.infers.automatic import AUTO_TAG
from lib.infers.automatic import NAME as AUTO
from lib.infers.label_merging import is_persons_label, require_label_tag, save_automatic_label
from lib.infers.task import EMBED

logger = logging.getLogger(__name__)

Images = Literal["all", "labeled", "unlabeled"]
# Key of a label's info with the fingerprint of the run that made it.
BATCH = "batch"
# Name of the task that scores images, beside those that segment and EMBED.
SCORE = "score"
_TIME = "%Y-%m-%d %H:%M:%S"
_DETAILS = 20
_KEPT_RUNS = 20
# Options of MONAI Label's own batch without a meaning here: one image is segmented at a time.
_IGNORED = frozenset({"multi_gpu", "logging", "save_label", "max_workers", "client_id"})
_OPTIONS = frozenset({"label_tag", "max_batch_size", "gpus", "model"})
# What would reach the environment of a process, or name other images than the address does.
_REFUSED = ("bundle_path", "image", "images", "session", "run_id")

Infer = Callable[[dict[str, Any]], dict[str, Any]]
Request = Mapping[str, Any]


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image of a run.

    Attributes:
        image: Image id.
        text: Result or reason, for people.
        is_done: Whether there is a result.
    """

    image: str
    text: str
    is_done: bool


# Work on images with a request for a user: outcomes in any order. An image is taken when its turn comes.
Executor = Callable[[Request, str, Iterable[str]], Iterator[ImageOutcome]]


class ImageWork:
    """Work on one image: computes, and saves a label under the request's tag.

    Args:
        infer: Runs the task on one image, as ``MONAILabelApp.infer``.
        datastore: Datastore of the images.
        priority: Makes the work wait while somebody clicks.
    """

    def __init__(self, infer: Infer, datastore: Datastore, priority: InteractivePriority):
        self._infer = infer
        self._datastore = datastore
        self._priority = priority

    def in_turn(self, request: Request, user: str, images: Iterable[str]) -> Iterator[ImageOutcome]:
        """Works on images one after the other, in the calling thread: an ``Executor``."""
        return (self(request, user, image) for image in images)

    def __call__(self, request: Request, user: str, image: str) -> ImageOutcome:
        """Works on an image.

        Args:
            request: ``model``, ``label_tag`` and the prompts.
            user: Name of the person who started the run.
            image: Image id.

        Raises:
            Cancelled: The run was stopped.
        """
        self._priority.give_way()
        file: str | None = None
        try:
            answer = self._infer({**request, "image": image, "save_label": False})
            file, params = answer["file"], answer["params"]
            if tag := request.get("label_tag"):
                self._save(request, user, image, file, tag, params)
                return ImageOutcome(image, "saved", True)
            return ImageOutcome(image, params["summary"], True)
        except Cancelled:
            raise
        except (BioSam2Error, OSError, MemoryError) as error:
            return ImageOutcome(image, str(error) or type(error).__name__, False)
        finally:
            if file is not None:
                Path(file).unlink(missing_ok=True)

    def _save(
        self, request: Request, user: str, image: str, file: str | None, tag: str, params: Mapping[str, Any]
    ) -> None:
        if file is None:
            raise BioSam2Error(f"{request['model']} makes no label file")
        info = {"model": request["model"], "params": params, "user": user}
        more = {AUTOMATIC: True, BATCH: fingerprint(request)}
        save_automatic_label(self._datastore, image, Path(file), tag, {**info, **more})


def fingerprint(request: Request) -> str:
    """Equal for requests with the same model and prompts."""
    text = json.dumps({**request, "images": None}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
    """Runs one batch at a time.

    The result of each image is saved at once under the run's tag, so the same request again goes on where a
    stopped or killed run ended. Labels that a person made are never replaced.

    Args:
        work: Works on the images.
        datastore: Datastore of the images.
    """

    def __init__(self, work: Executor, datastore: Datastore):
        self._work = work
        self._datastore = datastore
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
        """Starts a run in a thread of its own.

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
        """Works on the images of a run, and returns when it has ended."""
        try:
            with run.cancellation.applied():
                self._work_on_all(run, images, limit)
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

    def _work_on_all(self, run: BatchRun, images: Images, limit: int) -> None:
        tag = run.request.get("label_tag")
        chosen = self._choose(images)
        chosen = chosen[:limit] if limit else chosen
        run.total = len(chosen)
        run.note(f"{run.total} images, " + (f"labels are saved as {tag!r}" if tag else "no labels"))
        for outcome in self._work(run.request, run.user, self._left(run, chosen)):
            run.done += outcome.is_done
            run.failed += not outcome.is_done
            ended = run.done + run.skipped + run.failed
            run.note(f"{outcome.image}: {outcome.text} ({ended} of {run.total})")

    def _left(self, run: BatchRun, chosen: Iterable[str]) -> Iterator[str]:
        """The images without a label that stays, as their turns come."""
        tag = run.request.get("label_tag")
        for image in chosen:
            if run.cancellation.is_requested:
                raise Cancelled("the run was stopped")
            if tag and (reason := self._stays(run, image, tag)):
                run.skipped += 1
                run.note(f"{image}: {reason}")
            else:
                yield image

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
        return "done by an earlier run" if info.get(BATCH) == fingerprint(run.request) else None


def batch_request(model: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The request of every image, and the most images.

    Args:
        model: Name of the task.
        params: ``label_tag``, ``max_batch_size`` and the prompts, as a client sent them.

    Raises:
        PromptError: An option is out of range, or belongs to single images.
    """
    if found := [key for key in _REFUSED if key in params]:
        raise PromptError(f"params must not hold {', '.join(found)}: leave it out")
    tag = params.get("label_tag", AUTO_TAG if model == AUTO else "original")
    require_label_tag(tag)
    if tag == "final":
        raise PromptError(
            "label_tag 'final' is for labels that people submit and trainings learn from: choose another"
        )
    limit = params.get("max_batch_size") or 0
    if not isinstance(limit, int) or limit < 0:
        raise PromptError(f"max_batch_size is {limit!r}; it must be 0 (all) or more")
    own = {name: value for name, value in params.items() if name not in _IGNORED | _OPTIONS}
    without_label: dict[str, dict[str, Any]] = {EMBED: {"since": time.time()}, SCORE: {}}
    return {**own, "model": model, **without_label.get(model, {"label_tag": tag})}, limit
