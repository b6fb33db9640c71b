"""Who works on which image: several annotators at once never get the same one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_MINUTE_S = 60.0
# For so long an annotator is not given what they passed over, unless nothing else is free.
PASSED_OVER_S = 30 * _MINUTE_S


@dataclass(frozen=True)
class Annotator:
    """Who asks.

    Attributes:
        name: equal for requests of one annotator.
        is_named: whether the client said who it is (Slicer sends a ``client_id``). Who did not (OHIF, QuPath)
            is told from others by address and browser, and may be several people at once.
    """

    name: str
    is_named: bool


@dataclass
class _Lease:
    holder: str
    ends: float


class LeaseBook:
    """The images that annotators hold, and those that they passed over. Any thread may use it.

    A lease ends when its time is over, when its holder passes the image over, and when the image is no
    candidate any more: its final label was saved. It lives in the server's process alone; a restart ends all.

    Args:
        minutes: that a lease lasts; with 0 nobody is kept from anything.
        clock: seconds that never go back.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic):
        self._seconds = minutes * _MINUTE_S
        self._clock = clock
        # Guards both books; every public method holds it from beginning to end, and none calls another.
        self._lock = threading.Lock()
        self._leases: dict[str, _Lease] = {}  # by image, the oldest first
        self._passed: dict[tuple[str, str], float] = {}  # (annotator, image) to the end of the remembrance

    def take(self, annotator: Annotator, order: Sequence[str]) -> str | None:
        """Leases the first image that nobody holds.

        Args:
            annotator: who asks. One with a name who holds an image already gets that one again.
            order: images, best first.

        Returns:
            The image, or None where all are held, those of an annotator without a name too.
        """
        with self._lock:
            self._expire()
            held = self._of(annotator.name)
            if annotator.is_named and held:
                return self._lease(held[-1], annotator.name)
            free = next((image for image in order if image not in self._leases), None)
            return None if free is None else self._lease(free, annotator.name)

    def take_again(self, annotator: Annotator) -> str | None:
        """Leases anew what the annotator has held the longest; None where there is nothing."""
        with self._lock:
            self._expire()
            held = self._of(annotator.name)
            return self._lease(held[0], annotator.name) if held else None

    def open(self, annotator: Annotator, image: str) -> bool:
        """Leases one image that was opened by hand; False where somebody else holds it, who keeps it."""
        with self._lock:
            self._expire()
            lease = self._leases.get(image)
            if lease is not None and lease.holder != annotator.name:
                return False
            self._lease(image, annotator.name)
            return True

    def pass_over(self, annotator: Annotator) -> None:
        """Gives back all that the annotator holds, and remembers that they do not want it now."""
        with self._lock:
            self._expire()
            for image in self._of(annotator.name):
                del self._leases[image]
                self._passed[annotator.name, image] = self._clock() + PASSED_OVER_S

    def passed_over(self, annotator: Annotator) -> set[str]:
        """What the annotator passed over a short while ago."""
        with self._lock:
            self._expire()
            return {image for name, image in self._passed if name == annotator.name}

    def forget_passed_over(self, annotator: Annotator) -> None:
        """Lets the annotator have those again."""
        with self._lock:
            for key in [key for key in self._passed if key[0] == annotator.name]:
                del self._passed[key]

    def end(self, images: Iterable[str]) -> None:
        """Ends the leases of images: they have a final label now, or are gone."""
        with self._lock:
            for image in images:
                self._leases.pop(image, None)

    def held(self, annotator: Annotator | None = None) -> list[str]:
        """What an annotator holds, or everybody does; the oldest lease first."""
        with self._lock:
            self._expire()
            return list(self._leases) if annotator is None else self._of(annotator.name)

    def held_all(self, images: Iterable[str]) -> bool:
        """Whether somebody holds each of these images."""
        with self._lock:
            self._expire()
            return all(image in self._leases for image in images)

    def next_end_s(self) -> float | None:
        """Seconds until the first lease ends by itself; None where there is none."""
        with self._lock:
            self._expire()
            ends = [lease.ends for lease in self._leases.values()]
            return min(ends) - self._clock() if ends else None

    def _lease(self, image: str, holder: str) -> str:
        self._leases.pop(image, None)  # so that the dictionary is in the order of age
        self._leases[image] = _Lease(holder, self._clock() + self._seconds)
        return image

    def _of(self, holder: str) -> list[str]:
        return [image for image, lease in self._leases.items() if lease.holder == holder]

    def _expire(self) -> None:
        now = self._clock()
        self._leases = {image: lease for image, lease in self._leases.items() if lease.ends > now}
        self._passed = {key: end for key, end in self._passed.items() if end > now}
