"""Scorings in the background: MONAI Label's queue of processes, with manners.

MONAI Label runs one scoring process at a time and lets any number wait. It starts every method, each in a
process of its own, whenever the server starts, a training ends or somebody asks for the next sample; each
takes ten seconds of a core before it finds out that nothing has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import requests
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import background_executors, processes, tasks

from lib.engine.model_versions import Versions
from lib.scoring.process import lower_priority
from lib.scoring.registry import ALL

logger = logging.getLogger(__name__)

# Environment variable with the secret by which the server knows its own subprocesses.
SERVER_TOKEN = "BIOSAM2_SERVER_TOKEN"
_QUEUE = "scoring"
_WAITING, _STOPPED = "SUBMITTED", "STOPPED"
_TIME = "%Y-%m-%d %H:%M:%S"
_POLL_S = 0.1
_ANSWER_S = 30.0

Task = dict[str, Any]


def start(method: str, params: Mapping[str, Any], enqueue: bool = False) -> Task | None:
    """Starts a scoring in a process of its own, that gives way from its first moment on.

    Args:
        method: its name.
        params: its options.
        enqueue: whether it may wait for the one that runs.

    Returns:
        The task as MONAI Label has it; None where one runs already and this one may not wait.
    """
    options = {name: value for name, value in params.items() if name != "method"}
    task, _ = AsyncTask.run(_QUEUE, request={"method": method}, params=options, enqueue=enqueue)
    if task is not None:
        threading.Thread(target=_calm, args=(task,), name="scoring priority", daemon=True).start()
    found: Task | None = task
    return found


def drop_waiting() -> None:
    """Forgets the scorings that wait for the end of the one that runs."""
    queue = background_executors.get(_QUEUE)
    if queue is None:
        return
    background_executors[_QUEUE] = ThreadPoolExecutor(1)
    queue.shutdown(wait=False, cancel_futures=True)
    for task in tasks(_QUEUE):
        if task["status"] == _WAITING:
            task.update(status=_STOPPED, end_ts=datetime.today().strftime(_TIME))


def _calm(task: Task) -> None:
    """Lowers the priority of a task's process as soon as there is one: importing takes it ten seconds."""
    while task["status"] == _WAITING:
        time.sleep(_POLL_S)
    process = processes(_QUEUE).get(task["id"])
    if process is not None:
        lower_priority(process.pid)


class AutomaticScoring:
    """Scores by itself what has changed: one process for all methods, and at most one that waits.

    Args:
        state: what the scores depend on, as far as it can be told at once: another one after a change.
    """

    def __init__(self, state: Callable[[], str]):
        self._state = state
        self._scored: str | None = None
        # Guards ``_scored``, and the queue between being looked at and being added to.
        self._lock = threading.Lock()

    def start(self) -> Task | None:
        """Starts a scoring of everything; None where nothing has changed, or one waits that will see it."""
        with self._lock:
            if any(task["status"] == _WAITING for task in tasks(_QUEUE)):
                return None
            state = self._state()
            if state == self._scored:
                return None
            self._scored = state
            logger.info("Scoring starts by itself")
            return start(ALL, {}, enqueue=True)


def state_of(datastore: Datastore, versions: Versions) -> str:
    """Another one when an image came or went, a label was saved, or other weights were published.

    Args:
        datastore: of the images.
        versions: of the weights.
    """
    images = sorted(datastore.list_images())
    labels = [
        [image, tag, (datastore.get_label_info(label, tag) or {}).get("ts")]
        for image in images
        for tag, label in sorted(datastore.get_labels_by_image_id(image).items())
    ]
    facts = json.dumps([images, labels, versions.current()], default=str)
    return hashlib.sha256(facts.encode()).hexdigest()


def ask_server(path: str, params: Mapping[str, Any] | None, port: int) -> Any:
    """Asks the server on this machine for something, from one of its processes; never raises.

    What a process has done well must not fail because the server does not answer: it may speak TLS, with a
    certificate for another name than this machine's own, or be reached at another address alone.

    Args:
        path: of the request, such as ``/scoring/``.
        params: of the request.
        port: of the server.

    Returns:
        The JSON of the answer; None where there is none.
    """
    for scheme in ("http", "https"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a certificate that is not checked, on this machine
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
    logger.warning("The server did not take POST %s: %s", path, reason)
    return None
