"""What a scoring has done so far, in the log and as its result."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from lib.errors import BioSam2Error

logger = logging.getLogger(__name__)

# What is wrong with one image and with no other: it cannot be read, is too large for the memory, or makes the
# network answer in no numbers.
UNUSABLE = (BioSam2Error, ValueError, MemoryError, torch.OutOfMemoryError)


@dataclass
class Progress:
    """One run of a scoring method over images.

    Attributes:
        name: of the method.
        limit_s: seconds after which no further image is begun.
        done: images that were scored now.
        unchanged: images whose score was up to date.
        failed: reasons by image.
        left: images that the limits left for the next call.
    """

    name: str
    limit_s: float
    done: int = 0
    unchanged: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    _started: float = field(default_factory=time.monotonic)

    def over(self, images: Iterable[str], most: int = 0) -> Iterator[str]:
        """The images that are still to be visited, until the time is over or enough were scored.

        Args:
            images: ids.
            most: images that are scored, 0 for no limit.
        """
        waiting = list(images)
        for number, image in enumerate(waiting):
            if self.seconds > self.limit_s or (most and self.done >= most):
                self.left = len(waiting) - number
                logger.info("%s: %d images are left for the next call", self.name, self.left)
                return
            yield image

    def scored(self, image: str, what: str, waiting: int) -> None:
        """Notes an image that was scored.

        Args:
            image: its id.
            what: was found, for people.
            waiting: images that may still come.
        """
        self.done += 1
        pace = self.seconds / self.done
        logger.info(
            "%s: %s: %s; %d scored, %.1f s each, at most %.0f min to go",
            self.name,
            image,
            what,
            self.done,
            pace,
            waiting * pace / 60,
        )

    def failure(self, image: str, error: Exception) -> None:
        """Notes an image that cannot be scored; the others are."""
        self.failed[image] = str(error) or type(error).__name__
        logger.warning("%s: %s is left out: %s", self.name, image, error)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._started

    def summary(self) -> dict[str, Any]:
        """In plain JSON."""
        found = {
            "scored": self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "left": self.left,
            "seconds": round(self.seconds, 1),
        }
        logger.info("%s: %s", self.name, found)
        return found
