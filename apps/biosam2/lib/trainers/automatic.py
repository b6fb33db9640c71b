"""Training by itself: after so many new labels, in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.utils.async_tasks.utils import background_executors, tasks

from lib.errors import BioSam2Error

logger = logging.getLogger(__name__)

# MONAI Label's queue of trainings: a pool of one thread, and what it was given to do.
_QUEUE = "train"
_SUBMITTED, _STOPPED, _ERROR = "SUBMITTED", "STOPPED", "ERROR"


class AutoTrain:
    """Starts a training when there are so many new labels: those that no training has learned from.

    The labels themselves are counted, by the time at which each was saved, so that a restart forgets none.

    Args:
        after: new labels, of as many images, after which a training starts; 0 for never.
        new_labels: counts those that were saved after the last training that has learned began, and after a
            moment, in seconds since 1970.
        start: starts one; False where one runs already.
    """

    def __init__(self, after: int, new_labels: Callable[[float], int], start: Callable[[], bool]):
        self._after = after
        self._new_labels = new_labels
        self._start = start
        # A training says when it began ten seconds after its start; one that fails is not tried again with
        # the same labels while the server runs.
        self._started = 0.0
        # Whether a look waits in the queue for the end of the training that runs.
        self._waits = False
        self._lock = threading.Lock()

    def look(self) -> None:
        """Starts a training where there are enough new labels; where one runs, looks again at its end.

        Labels that cannot be counted now are counted after the next one: those that were saved are saved.
        """
        if not self._after:
            return
        try:
            self._look()
        except BioSam2Error as error:
            logger.warning("No training starts by itself now: %s", error)

    def _look(self) -> None:
        with self._lock:
            new = self._new_labels(self._started)
            if new < self._after:
                return
            if not _is_submitted() and self._start():
                logger.info("A training starts after %d new labels", new)
                self._started = time.time()
            elif not self._waits:
                self._waits = True
                background_executors[_QUEUE].submit(self._look_after, tasks(_QUEUE)[-1])

    def _look_after(self, training: dict[str, Any]) -> None:
        """In MONAI Label's own queue, after the training that runs: a person who stopped it wants none."""
        with self._lock:
            self._waits = False
        if training["status"] == _SUBMITTED:
            # Its turn is over: MONAI Label could not start its process, and would never say so.
            training["status"] = _ERROR
        if tasks(_QUEUE)[-1]["status"] != _STOPPED:
            self.look()


def _is_submitted() -> bool:
    """Whether a training is about to start: MONAI Label counts one as running once it has a process."""
    return any(task["status"] == _SUBMITTED for task in tasks(_QUEUE)[-1:])


def labels_since(datastore: Datastore, moment: float) -> int:
    """How many images have a final label that was saved at a moment or later. Labels know it to the second.

    Args:
        datastore: of the images.
        moment: seconds since 1970.
    """
    saved = (
        (datastore.get_label_info(label, DefaultLabelTag.FINAL) or {}).get("ts")
        for image in datastore.list_images()
        if (label := datastore.get_label_by_image_id(image, DefaultLabelTag.FINAL))
    )
    # A client can write any text into it; what is no time is from before the first training.
    return sum((ts if isinstance(ts, (int, float)) else 0) >= moment for ts in saved)
