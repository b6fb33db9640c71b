"""Scoring in the background: MONAI Label's process queue, used sparingly."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import requests
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import background_executors, tasks

from lib.engine.model_versions import Versions

logger = logging.getLogger(__name__)

# The module that MONAI Label runs in a process for each training, scoring and batch inference.
_WORKER_MODULE = "monailabel.interfaces.utils.app"


def is_worker_process() -> bool:
    """Whether MONAI Label started this process for one task; False in the server."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None) == _WORKER_MODULE


# Environment variable with the secret by which the server knows its own subprocesses.
SERVER_TOKEN = "BIOSAM2_SERVER_TOKEN"
_QUEUE = "scoring"
_WAITING, _STOPPED = "SUBMITTED", "STOPPED"
_TIME = "%Y-%m-%d %H:%M:%S"
_ANSWER_S = 30.0

# Method that runs all others in one process.
ALL = "biosam2_all"

Task = dict[str, Any]


def start(method: str, params: Mapping[str, Any], enqueue: bool = False) -> Task | None:
    """Starts a scoring process; ``enqueue`` lets it wait for the running one.

    Returns:
        MONAI Label's task; None if a scoring runs already and this one may not wait.
    """
    options = {name: value for name, value in params.items() if name != "method"}
    task, _ = AsyncTask.run(_QUEUE, request={"method": method}, params=options, enqueue=enqueue)
    found: Task | None = task
    return found


def drop_waiting() -> None:
    """Removes the queued scorings."""
    queue = background_executors.get(_QUEUE)
    if queue is None:
        return
    background_executors[_QUEUE] = ThreadPoolExecutor(1)
    queue.shutdown(wait=False, cancel_futures=True)
    for task in tasks(_QUEUE):
        if task["status"] == _WAITING:
            task.update(status=_STOPPED, end_ts=datetime.today().strftime(_TIME))


class AutomaticScoring:
    """Starts scoring after changes: one process for all methods, and at most one in the queue.

    ``state`` computes a digest of everything that the scores depend on.
    """

    def __init__(self, state: Callable[[], str]):
        self._state = state
        self._scored: str | None = None
        # Guards ``_scored``, and the queue between check and submission.
        self._lock = threading.Lock()

    def start(self) -> Task | None:
        """Starts all methods; None if nothing has changed, or a queued scoring will see the change."""
        with self._lock:
            if any(task["status"] == _WAITING for task in tasks(_QUEUE)):
                return None
            state = self._state()
            if state == self._scored:
                return None
            self._scored = state
            logger.info("Automatic scoring starts")
            return start(ALL, {}, enqueue=True)


def state_of(datastore: Datastore, versions: Versions) -> str:
    """Digest that changes with images, saved labels, and the weights in service."""
    images = sorted(datastore.list_images())
    labels = [
        [image, tag, (datastore.get_label_info(label, tag) or {}).get("ts")]
        for image in images
        for tag, label in sorted(datastore.get_labels_by_image_id(image).items())
    ]
    facts = json.dumps([images, labels, versions.current()], default=str)
    return hashlib.sha256(facts.encode()).hexdigest()


def ask_server(path: str, params: Mapping[str, Any] | None, port: int) -> Any:
    """Sends a POST request to the server on this machine, from one of its worker processes; never raises.

    The result of a worker process must not depend on it: the server may use TLS with a certificate for
    another name, or listen on another address only.

    Returns:
        JSON of the response; None without a successful response.
    """
    for scheme in ("http", "https"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the unverified certificate of this machine
                answer = requests.post(
                    f"{scheme}://127.0.0.1:{port}{path}",
                    json=dict(params or {}),
                    headers={"Authorization": f"Bearer {os.environ.get(SERVER_TOKEN, '')}"},
                    timeout=_ANSWER_S,
                    verify=False,
                )
            if answer.ok:
                return answer.json()
            reason = f"{answer.status_code} {answer.text[:200]}"
        except (requests.RequestException, ValueError) as error:
            reason = str(error)
        logger.debug("POST %s by %s: %s", path, scheme, reason)
    logger.warning("The server did not accept POST %s: %s", path, reason)
    return None
