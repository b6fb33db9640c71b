"""Encodes slices in the background before they are asked for: the neighbours of the one that is looked at."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from itertools import chain

from cachetools import TTLCache

from lib.engine.frames import FrameSequence
from lib.engine.network import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.runtime import Cancellation, InteractivePriority
from lib.errors import BioSam2Error, Cancelled

logger = logging.getLogger(__name__)

# Viewers whose slices are encoded; the one that was heard of last comes first.
MOST_VIEWERS = 16
# Seconds for which a viewer has its share of the cache after a click, and viewers that are remembered.
_SHARE_S, _REMEMBERED = 600.0, 256
# A slice behind is as far as one ahead at this many times its distance.
_BEHIND = 2.5
_STOP_S = 5.0

Slice = tuple[Predictor, FrameSequence, int]


class Prefetcher:
    """One thread that fills the embedding cache while no request runs.

    Requests come first: nothing begins while one runs, and an encoding under way is dropped for a click on
    another slice. Each viewer has one list of wished slices, which its next one replaces.

    Args:
        neighbours: Slices that are encoded around the one that was clicked on; 0 for none.
        embeddings: Cache that is filled; neighbours take half of its budget at most.
        priority: Tells when no request runs.

    Attributes:
        encoded: Number of slices encoded so far.
        dropped: Number of encodings that a request stopped.
    """

    def __init__(self, neighbours: int, embeddings: EmbeddingCache, priority: InteractivePriority):
        self.encoded = self.dropped = 0
        self._neighbours = neighbours
        self._embeddings = embeddings
        self._priority = priority
        # Image, slice and direction of travel of each viewer.
        self._places: TTLCache[Hashable, tuple[str, int, int]] = TTLCache(_REMEMBERED, _SHARE_S)
        self._changed = threading.Condition()
        self._wishes: OrderedDict[Hashable, Iterator[Slice]] = OrderedDict()
        self._current: tuple[Hashable, Cancellation] | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def pending(self) -> int:
        """Viewers with slices that are still to be encoded."""
        return len(self._wishes)

    def opened(self, viewer: Hashable, opening: Callable[[], Slice]) -> None:
        """Encodes the slice that is likely asked for first.

        Args:
            viewer: Name of the client.
            opening: Opens the image in the background, and chooses the slice.
        """
        if self._neighbours:
            self._wish(viewer, (opening() for _ in range(1)))

    def looked_at(self, viewer: Hashable, predictor: Predictor, frames: FrameSequence, index: int) -> None:
        """Encodes the neighbours of a slice: nearest first, more of them in the direction of travel.

        Args:
            viewer: Name of the client.
            predictor: Network that answered.
            frames: Slices of the image.
            index: Slice that was clicked on.
        """
        features = predictor.kept(frames, index) if self._neighbours else None
        if features is None:
            return
        with self._changed:
            image, before, direction = self._places.get(viewer, ("", 0, 0))
            direction = (index - before or direction) if image == frames.digest else 0
            self._places[viewer] = frames.digest, index, direction
            room = self._embeddings.budget // 2 // features.nbytes // len(self._places)
        order = _order(index, len(frames), direction)[: min(self._neighbours, room)]
        self._wish(viewer, ((predictor, frames, neighbour) for neighbour in order))

    def give_way(self, frames: FrameSequence, indices: Collection[int]) -> None:
        """Drops the encoding under way, unless it is that of a slice which the calling request needs.

        Args:
            frames: Slices of the request's image.
            indices: Slices with prompts.
        """
        with self._changed:
            if self._current is None:
                return
            key, cancellation = self._current
            if key not in {(frames.digest, frames.key(index)) for index in indices}:
                cancellation.cancel()

    def stop(self) -> None:
        """Drops all slices, and returns when the thread has ended."""
        with self._changed:
            self._stopped = True
            self._wishes.clear()
            if self._current is not None:
                self._current[1].cancel()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _wish(self, viewer: Hashable, slices: Iterator[Slice]) -> None:
        with self._changed:
            if self._stopped:
                return
            self._wishes[viewer] = slices
            self._wishes.move_to_end(viewer)
            if len(self._wishes) > MOST_VIEWERS:
                self._wishes.popitem(last=False)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="prefetching", daemon=True)
                self._thread.start()
                # A thread inside torch or OpenVINO while the interpreter ends would crash the process.
                atexit.register(self.stop)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wishes or self._stopped)
            self._priority.give_way()
            with self._changed:
                if self._stopped:
                    return
                if not self._wishes:
                    continue
                viewer, slices = next(reversed(self._wishes.items()))
            rest = self._encode_first(slices)
            with self._changed:
                self._current = None
                if self._wishes.get(viewer) is not slices:
                    continue
                if rest is None:
                    del self._wishes[viewer]
                else:
                    self._wishes[viewer] = rest

    def _encode_first(self, slices: Iterator[Slice]) -> Iterator[Slice] | None:
        """Encodes the first of some slices; what is left of them, None where there is nothing."""
        try:
            first = next(slices, None)
            if first is None:
                return None
            return slices if self._encode(*first) else chain([first], slices)
        except (BioSam2Error, OSError, MemoryError, RuntimeError) as error:
            logger.warning("Slices are not encoded before they are asked for: %s", error)
            return None

    def _encode(self, predictor: Predictor, frames: FrameSequence, index: int) -> bool:
        """Whether a slice is in the cache now; False where a request came between."""
        if predictor.kept(frames, index) is not None:
            return True
        cancellation = Cancellation()
        with self._changed:
            self._current = (frames.digest, frames.key(index)), cancellation
        if self._priority.is_busy:
            return False
        try:
            with cancellation.applied():
                predictor.features(frames, index)
        except Cancelled:
            self.dropped += 1
            return False
        self.encoded += 1
        return True


def _order(index: int, count: int, direction: int) -> list[int]:
    """All other slices, nearest first; those behind as if they were farther away."""

    def distance(other: int) -> tuple[float, int]:
        offset = other - index
        return abs(offset) * (_BEHIND if offset * direction < 0 else 1.0), -offset

    return sorted((other for other in range(count) if other != index), key=distance)
