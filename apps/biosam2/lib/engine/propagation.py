"""From prompts on some frames to masks on all: prompted frames first, then backward, then forward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lib.engine.frames import FramesAhead, FrameSequence
from lib.engine.likeness import Likeness
from lib.engine.memory import MemoryBank
from lib.engine.predictor import MOST_AT_ONCE, FrameMask, Predictor
from lib.prompts.types import FramePrompts
from lib.settings import MemoryPolicy

# Drawn masks that go into the memory of one object: memory attention takes time for each.
MOST_MASKS = 8
CLOSED_SLICES = 3
# In a volume mistakes grow from slice to slice, so each one is compared with the prompted ones as well
# (``lib.engine.likeness``). What is like the object may be a neighbour that is alike: it counts half of
# what is unlike it. docs/prompts.md has what this gains.
ASSENT = 0.5

# Slices in a row on which nothing is found. One or two are missed by noise alone.
ABSENT_SLICES = 3

# Below this share of its largest area an object counts as tapered. A ball of ten slices is there on its last.
TAPERED = 0.25

# A tapered object that is larger than this many times its smallest area is another one.
REGROWN = 1.5

# Below this share of its largest area an object is expected to go on shrinking. One that shrinks by less than
# the share SLOW of what an ellipsoid would, on SLOW_SLICES in a row and on a tenth of those since its largest
# area, is another one. From slice to slice it keeps the share KEPT of its area at least.
SMALL = 0.5
SLOW, KEPT = 0.2, 0.9
SLOW_SLICES = 3

Segment = Callable[[FrameSequence, int, FramePrompts, MemoryBank], FrameMask]
Steps = Iterator[tuple[int, int, FrameMask]]
Propagate = Callable[..., Steps]


class StopRule:
    """Watches the area of one object in one direction, and tells when the object has ended.

    A network that finds nothing more of an object often goes on with a neighbour that looks alike. Signs are,
    from the areas of the masks alone: nothing was found on some slices in a row; the object had shrunk to a
    small part of itself, as all do towards their end, and then grows again; or it stays at half of its size
    or less.

    What was found is not compared with the prompted slices: far from them an aorta was as unlike itself as
    its neighbours are.

    Args:
        area: Pixels of the mask that the direction starts from.
    """

    def __init__(self, area: int):
        self._largest = area
        self._smallest = area
        self._previous = area
        self._absent = 0
        self._slow = 0
        self._since_largest = 0

    def reached(self, area: int) -> bool:
        """Takes in the next slice.

        Args:
            area: Pixels of the mask there; 0 where the network does not see the object.

        Returns:
            Whether the object has ended before this slice, so that what was found there is not it.
        """
        tapered = self._smallest < TAPERED * self._largest
        self._since_largest += 1
        if area == 0:
            self._absent += 1
            return tapered or self._absent >= ABSENT_SLICES
        self._slow = self._slow + 1 if self._is_slow(area) else 0
        regrown = tapered and area > REGROWN * self._smallest
        self._absent = 0
        self._previous = area
        if area > self._largest:
            self._largest = self._smallest = area
            self._since_largest = 0
        self._smallest = min(self._smallest, area)
        return regrown or self._slow >= max(SLOW_SLICES, self._since_largest // 10)

    def _is_slow(self, area: int) -> bool:
        """Whether a small object shrinks much less than an ellipsoid that has come from the largest area."""
        if area >= SMALL * self._largest:
            return False
        share = area / self._largest
        # Its area n slices from the largest is 1 - (n / N)^2, and shrinks by 2 n / N^2 from slice to slice.
        shrinking = 2 * (1 - share) / (share * self._since_largest)
        return area >= max(KEPT, 1 - SLOW * shrinking) * self._previous


@dataclass
class _Track:
    """One object on its way through the frames.

    Attributes:
        prompts: Prompts that say where the object is.
        refused: Negative points of other frames.
        remembered: Prompted frames that go into the memory.
        closed: Whether the object ends with its first, and with its last prompted frame.
    """

    number: int
    prompts: Mapping[int, FramePrompts]
    refused: Mapping[int, FramePrompts]
    bank: MemoryBank
    ends: bool
    remembered: frozenset[int]
    closed: tuple[bool, bool] = (False, False)
    areas: dict[int, int] = field(default_factory=dict)
    ending: StopRule | None = None

    @property
    def first(self) -> int:
        return min(self.prompts)

    @property
    def last(self) -> int:
        return max(self.prompts)

    def answer(self, frames: FrameSequence, index: int, segment: Segment) -> FrameMask:
        """The answer to the prompts of a frame; a drawn mask that is not remembered needs no network."""
        prompts = self.prompts[index]
        if prompts.mask is not None and index not in self.remembered:
            return FrameMask(prompts.mask, 1.0, 1.0)
        return segment(frames, index, prompts, self.bank)

    def start_from(self, index: int) -> None:
        """Follows the object from one of its prompted frames on."""
        self.ending = StopRule(self.areas[index])

    def reaches(self, index: int) -> bool:
        """Whether a frame without prompts lies on the way forward."""
        return self.first < index and not (self.closed[1] and index > self.last)

    def follow(self, predictor: Predictor, frames: FrameSequence, index: int, reverse: bool) -> FrameMask:
        """The object on a frame; an empty mask where it has just ended."""
        return self.ended(predictor.track(frames, index, self.bank, reverse, self.refused.get(index)))

    def ended(self, result: FrameMask) -> FrameMask:
        """The result on the next frame; an empty mask where the object has just ended."""
        if self.ends and self.ending is not None and self.ending.reached(int(result.mask.sum())):
            self.ending = None
            return replace(result, mask=np.zeros_like(result.mask), logits=None)
        return result


def propagate(
    predictor: Predictor,
    frames: FrameSequence,
    objects: Sequence[Mapping[int, FramePrompts]],
    bounds: tuple[int, int] | None = None,
    limit: int = 0,
    ends: bool = True,
    segment: Segment | None = None,
    closed: bool = False,
    memory: MemoryPolicy = "fifo",
    bank: MemoryBank | None = None,
) -> Steps:
    """Follows objects through the frames.

    The prompted frames of an object are segmented first and always remembered. Then it is followed backward
    from its first prompted frame, and, with the memory of that way forgotten, forward over all that come
    after, each way to its end (``StopRule``). A prompted frame further on takes it up again.

    A frame with nothing but negative points does not say where the object is; on the way they correct the
    mask that they lie in.

    Args:
        predictor: Network.
        frames: Frames of the image.
        objects: Prompts of each object by frame index; one of them says where the object is.
        bounds: Half-open range of the frames to visit; all when None. Prompted frames are visited anyway.
        limit: Most frames to go beyond the first and the last prompted one; 0 for no limit.
        ends: Whether an object that has gone stays away, as in a volume; in a video it may come back.
        closed: Whether an object ends where a mask was drawn on its last ``CLOSED_SLICES`` slices.
        memory: Memories that are looked back at (``lib.engine.memory``).
        bank: Memory that each object starts with, in place of an empty one of the policy ``memory``.
        segment: Answers the prompts of a frame and adds the answer to the bank; the predictor's by default.

    Yields:
        The object's position in ``objects``, the frame's index, and the result there. Frames that are not
        yielded do not hold the object.
    """
    segment = segment or predictor.segment
    tracks = [
        _track(number, prompts, bank.copy() if bank else predictor.new_bank(memory), ends, closed)
        for number, prompts in enumerate(objects)
    ]
    for track in tracks:
        track.bank.keeps_absent = ends
        if ends and bank is None:
            track.bank.likeness = Likeness(ASSENT)
    low, high = bounds if bounds is not None else (0, len(frames))
    for index in sorted({index for track in tracks for index in track.prompts}):
        for track in tracks:
            if index in track.prompts:
                result = track.answer(frames, index, segment)
                track.areas[index] = int(result.mask.sum())
                yield track.number, index, result

    # Prompted frames are encoded by now.
    prompted = {index for track in tracks for index in track.prompts}
    first, last = min(prompted), max(track.first for track in tracks)
    before = [i for i in reversed(range(low, high)) if i < last and i not in prompted]
    after = [i for i in range(low, high) if i > first and i not in prompted]
    with FramesAhead(frames, before) as ahead:
        yield from _backward(predictor, ahead, tracks, range(low, high), limit)
    with FramesAhead(frames, after) as ahead:
        yield from _forward(predictor, ahead, tracks, range(low, high), limit)


def _backward(
    predictor: Predictor, frames: FrameSequence, tracks: Sequence[_Track], indices: range, limit: int
) -> Steps:
    for track in tracks:
        track.start_from(track.first)
    for index in reversed(indices):
        due = [
            track
            for track in tracks
            if index < track.first and not (limit and track.first - index > limit)
            if track.ending and not track.closed[0]
        ]
        yield from _follow(predictor, frames, index, due, reverse=True)


def _forward(
    predictor: Predictor, frames: FrameSequence, tracks: Sequence[_Track], indices: range, limit: int
) -> Steps:
    for track in tracks:
        track.bank.forget_tracked()
        track.start_from(track.first)
    for index in indices:
        due = []
        for track in tracks:
            near = not limit or index - track.last <= limit
            if index in track.prompts:
                track.start_from(index)
            elif track.reaches(index) and near and track.ending:
                due.append(track)
        yield from _follow(predictor, frames, index, due, reverse=False)


def _follow(
    predictor: Predictor, frames: FrameSequence, index: int, tracks: Sequence[_Track], reverse: bool
) -> Steps:
    """Objects on a frame; those whose memories are alike in number and place, in steps of a few of them."""
    together: dict[Hashable, list[_Track]] = defaultdict(list)
    for track in tracks:
        key = None if index in track.refused else track.bank.joint_key
        together[key if key is not None else track.number].append(track)
    for group in together.values():
        for start in range(0, len(group), MOST_AT_ONCE):
            some = group[start : start + MOST_AT_ONCE]
            if len(some) == 1:
                yield some[0].number, index, some[0].follow(predictor, frames, index, reverse)
                continue
            results = predictor.track_together(frames, index, [track.bank for track in some], reverse)
            for track, result in zip(some, results, strict=True):
                yield track.number, index, track.ended(result)


def _track(
    number: int, prompts: Mapping[int, FramePrompts], bank: MemoryBank, ends: bool, closed: bool
) -> _Track:
    seen = {index: item for index, item in prompts.items() if item.has_positive}
    refused = {index: item for index, item in prompts.items() if not item.has_positive}
    drawn = [index for index in sorted(seen) if seen[index].is_mask_alone]
    chosen = {
        drawn[place] for place in np.linspace(0, len(drawn) - 1, min(len(drawn), MOST_MASKS)).astype(int)
    }
    remembered = frozenset(seen) - frozenset(drawn) | chosen
    both = (_is_closed(drawn, min(seen), 1), _is_closed(drawn, max(seen), -1)) if closed else (False, False)
    return _Track(number, seen, refused, bank, ends, remembered, both)


def _is_closed(drawn: Sequence[int], end: int, step: int) -> bool:
    """Whether a mask was drawn on an end slice and on those beside it."""
    return {end + step * number for number in range(CLOSED_SLICES)} <= set(drawn)
