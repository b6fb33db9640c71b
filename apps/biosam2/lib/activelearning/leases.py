"""Leases of images: annotators who work at the same time never get the same image."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.files import alone, write_atomically

logger = logging.getLogger(__name__)

_MINUTE_S = 60.0
# Time for which a skipped image is not offered to the same annotator, unless nothing else is free.
SKIPPED_S = 30 * _MINUTE_S


@dataclass(frozen=True)
class Annotator:
    """Client that asks for an image.

    Attributes:
        name: Equal for all requests of one annotator.
        is_named: Whether the annotator signed in or entered a name in the viewer (Slicer). Unnamed ones are
            told apart by address and browser, and may be several people.
    """

    name: str
    is_named: bool


@dataclass
class _Lease:
    holder: str
    ends: float


# Orders free images, best first, given the images that are leased.
Rank = Callable[[Sequence[str], Sequence[str]], Iterable[str]]


class LeaseBook:
    """Leased and skipped images. Thread-safe.

    A lease ends by time or when its holder skips the image, and has no effect once the image has a final
    label.

    Args:
        minutes: Duration of a lease; 0 disables leases.
        clock: Clock in seconds, the same for all servers.
        file: File by which several servers share the leases, which then outlive a restart; None for leases
            of this process alone.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.time, file: Path | None = None):
        self._seconds = minutes * _MINUTE_S
        self._clock = clock
        self._file = file
        # Guards both dictionaries; every public method holds it throughout, and none calls another.
        self._lock = threading.Lock()
        self._leases: dict[str, _Lease] = {}  # by image, oldest first
        self._skipped: dict[tuple[str, str], float] = {}  # (annotator, image) -> expiry time of the skip

    def take(self, annotator: Annotator, images: Sequence[str], rank: Rank) -> str | None:
        """Leases the best free image that the annotator has not skipped.

        A named annotator with a lease gets the same image again. An unnamed one gets the image that they have
        held longest once nothing else is free. An annotator without a lease who skipped all free images is
        offered them again.

        Args:
            annotator: Client that asks.
            images: All candidates.
            rank: Orders the free images; called at most once, while other annotators wait.

        Returns:
            Image id; None if other annotators hold all images.
        """
        with self._lock, self._shared():
            candidates = set(images)
            own = [image for image in self._of(annotator.name) if image in candidates]
            if annotator.is_named and own:
                return self._lease(own[-1], annotator.name)
            free = [image for image in images if image not in self._leases]
            held = [image for image in images if image in self._leases]
            wanted = [image for image in free if (annotator.name, image) not in self._skipped]
            if not wanted and not own:
                self._skipped = {key: end for key, end in self._skipped.items() if key[0] != annotator.name}
                wanted = free
            ranked = rank(wanted, held) if wanted else ()
            best = next(iter(ranked), own[0] if own else None)
            return None if best is None else self._lease(best, annotator.name)

    def open(self, annotator: Annotator, image: str) -> bool:
        """Leases an image opened by name; False if another annotator holds it, whose lease stays."""
        with self._lock, self._shared():
            lease = self._leases.get(image)
            if lease is not None and lease.holder != annotator.name:
                return False
            self._lease(image, annotator.name)
            return True

    def skip(self, annotator: Annotator, image: str | None = None) -> None:
        """Ends the annotator's lease of one image, or all their leases, and remembers the skip."""
        with self._lock, self._shared():
            own = self._of(annotator.name)
            for skipped in own if image is None else [image]:
                self._skipped[annotator.name, skipped] = self._clock() + SKIPPED_S
                if skipped in own:
                    del self._leases[skipped]

    def next_end_s(self, images: Iterable[str]) -> float | None:
        """Seconds until the first lease of these images expires; None without any lease."""
        with self._lock, self._shared():
            ends = [self._leases[image].ends for image in images if image in self._leases]
            return min(ends) - self._clock() if ends else None

    @contextlib.contextmanager
    def _shared(self) -> Iterator[None]:
        """Reads the leases of all servers, drops those that have ended, and writes what was changed."""
        if self._file is None:
            self._expire()
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(alone(self._file.with_suffix(".lock")))
                before = self._read(self._file)
            except OSError as error:
                logger.warning("Leases are not shared with other servers: %s", error)
                before = self._text
            self._expire()
            yield
            if self._text != before:
                with contextlib.suppress(OSError):
                    write_atomically(self._file, self._text.encode())

    def _read(self, file: Path) -> str:
        try:
            text = file.read_text(encoding="utf-8")
            leases, skipped = json.loads(text)
            self._leases = {image: _Lease(str(holder), float(ends)) for image, holder, ends in leases}
            self._skipped = {(str(name), str(image)): float(ends) for name, image, ends in skipped}
        except FileNotFoundError:
            return ""
        except (ValueError, TypeError) as error:
            logger.warning("The leases cannot be read, those of this server stay: %s", error)
            return ""
        return text

    @property
    def _text(self) -> str:
        """JSON of all leases (image, holder, end) and skips (annotator, image, end)."""
        leases = [(image, lease.holder, lease.ends) for image, lease in self._leases.items()]
        return json.dumps([leases, [(*key, ends) for key, ends in self._skipped.items()]])

    def _lease(self, image: str, holder: str) -> str:
        self._leases.pop(image, None)  # keeps the dictionary ordered by age
        self._leases[image] = _Lease(holder, self._clock() + self._seconds)
        return image

    def _of(self, holder: str) -> list[str]:
        return [image for image, lease in self._leases.items() if lease.holder == holder]

    def _expire(self) -> None:
        now = self._clock()
        self._leases = {image: lease for image, lease in self._leases.items() if lease.ends > now}
        self._skipped = {key: end for key, end in self._skipped.items() if end > now}
