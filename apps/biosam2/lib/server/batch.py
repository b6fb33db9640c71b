"""Segments many images in the background, one at a time: resumable, cancellable, behind clicks."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import anyio
from monailabel.interfaces.datastore import Datastore

from lib.datastores.label_entries import AUTOMATIC
from lib.engine.cancellation import Cancellation
from lib.engine.interactive_priority import InteractivePriority
from lib.errors import BioSam2Error, Cancelled
from lib.infers.inference import is_persons_label, save_automatic_label

logger = logging.getLogger(__name__)

Images = Literal["all", "labeled", "unlabeled"]
# Key of a label's info with the fingerprint of the run that made it.
BATCH = "batch"
_TIME = "%Y-%m-%d %H:%M:%S"
_DETAILS = 20
_KEPT_RUNS = 20
_POLL_S = 0.05

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
        progress = {"total": self.total, "done": self.done, "skipped": self.skipped, "failed": self.failed}
        return {
            "id": self.id,
            "status": self.status,
            "request": self.request,
            "user": self.user,
            "start_ts": self.start_ts,
            **({"end_ts": self.end_ts} if self.end_ts else {}),
            "progress": progress,
            "details": list(self.details),
        }


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
            run.note(
                f"ended: {error}" if isinstance(error, BioSam2Error) else "ended by a defect: see the log"
            )
            status = "ERROR"
        run.end_ts = datetime.now().strftime(_TIME)
        run.status = status

    def _segment_all(self, run: BatchRun, images: Images, limit: int) -> None:
        tag = run.request["label_tag"]
        chosen = self._choose(images, tag)
        chosen = chosen[:limit] if limit else chosen
        run.total = len(chosen)
        run.note(f"{run.total} images, labels are saved as {tag!r}")
        for image in chosen:
            if run.cancellation.is_requested:
                raise Cancelled("the run was stopped")
            if reason := self._stays(run, image, tag):
                run.skipped += 1
                run.note(f"{image}: {reason}")
                continue
            self._priority.give_way()
            self._segment(run, image, tag)

    def _choose(self, images: Images, tag: str) -> list[str]:
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

    def _segment(self, run: BatchRun, image: str, tag: str) -> None:
        file: str | None = None
        try:
            answer = self._infer({**run.request, "image": image, "save_label": False})
            file = answer["file"]
            if file is None:
                raise BioSam2Error(f"{run.request['model']} makes no label file")
            info = {"model": run.request["model"], "params": answer["params"], "user": run.user}
            more = {AUTOMATIC: True, BATCH: run.fingerprint}
            save_automatic_label(self._datastore, image, Path(file), tag, {**info, **more})
            run.done += 1
            run.note(f"{image}: saved ({run.done + run.skipped + run.failed} of {run.total})")
        except Cancelled:
            raise
        except (BioSam2Error, OSError, MemoryError) as error:
            run.failed += 1
            run.note(f"{image}: {error}")
        finally:
            if file is not None:
                Path(file).unlink(missing_ok=True)
