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
        is_named: whether they signed in, or entered a name in their viewer (Slicer). Who did neither is told
            from others by address and browser, and may be several people at once.
    """

    name: str
    is_named: bool


@dataclass
class _Lease:
    holder: str
    ends: float


# Orders free images, the best first, in view of those that somebody holds.
Rank = Callable[[Sequence[str], Sequence[str]], Iterable[str]]


class LeaseBook:
    """The images that annotators hold, and those that they passed over. Any thread may use it.

    A lease ends when its time is over and when its holder passes the image over, and counts for nothing while
    the image is no candidate: its final label was saved. It lives in the server's process alone; a restart
    ends all.

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

    def take(self, annotator: Annotator, images: Sequence[str], rank: Rank) -> str | None:
        """Leases the best image that nobody holds, of those that the annotator has not passed over.

        Who has a name and holds an image gets that one again; who has none, what they have held the longest,
        once nothing else is free. Who holds nothing and passed over all that is free may have it again.

        Args:
            annotator: who asks.
            images: all candidates.
            rank: orders the free ones. It is asked once at most, and nobody else is served meanwhile.

        Returns:
            The image, or None where others hold all.
        """
        with self._lock:
            self._expire()
            candidates = set(images)
            own = [image for image in self._of(annotator.name) if image in candidates]
            if annotator.is_named and own:
                return self._lease(own[-1], annotator.name)
            free = [image for image in images if image not in self._leases]
            held = [image for image in images if image in self._leases]
            wanted = [image for image in free if (annotator.name, image) not in self._passed]
            if not wanted and not own:
                self._passed = {key: end for key, end in self._passed.items() if key[0] != annotator.name}
                wanted = free
            ranked = rank(wanted, held) if wanted else ()
            best = next(iter(ranked), own[0] if own else None)
            return None if best is None else self._lease(best, annotator.name)

    def open(self, annotator: Annotator, image: str) -> bool:
        """Leases one image that was opened by hand; False where somebody else holds it, who keeps it."""
        with self._lock:
            self._expire()
            lease = self._leases.get(image)
            if lease is not None and lease.holder != annotator.name:
                return False
            self._lease(image, annotator.name)
            return True

    def pass_over(self, annotator: Annotator, image: str | None = None) -> None:
        """Gives back one image, or all that the annotator holds, and remembers that they do not want it."""
        with self._lock:
            self._expire()
            own = self._of(annotator.name)
            for passed in own if image is None else [image]:
                self._passed[annotator.name, passed] = self._clock() + PASSED_OVER_S
                if passed in own:
                    del self._leases[passed]

    def next_end_s(self, images: Iterable[str]) -> float | None:
        """Seconds until the first lease of these images ends by itself; None where there is none."""
        with self._lock:
            self._expire()
            ends = [self._leases[image].ends for image in images if image in self._leases]
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
