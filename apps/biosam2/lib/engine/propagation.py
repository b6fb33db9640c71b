"""From prompts on some frames to masks on all: prompted frames first, then backward, then forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lib.engine.memory import MemoryBank
from lib.engine.predictor import FrameMask, Frames, Predictor
from lib.prompts.types import FramePrompts

# An object has ended when the network does not see it on this many frames in a row. One or two are missed
# by noise alone; a longer wait follows structures that merely look alike.
_ABSENT_FRAMES_TO_STOP = 3


@dataclass
class _Track:
    """One object on its way through the frames."""

    number: int
    prompts: Mapping[int, FramePrompts]
    bank: MemoryBank
    absent: int = 0
    first: int = field(init=False)
    last: int = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.last = min(self.prompts), max(self.prompts)

    @property
    def ended(self) -> bool:
        return self.absent >= _ABSENT_FRAMES_TO_STOP

    def saw(self, result: FrameMask) -> None:
        self.absent = 0 if result.mask.any() else self.absent + 1

    def turn(self) -> None:
        self.bank.forget_tracked()
        self.absent = 0


def propagate(
    predictor: Predictor,
    frames: Frames,
    digest: str,
    objects: Sequence[Mapping[int, FramePrompts]],
    bounds: tuple[int, int] | None = None,
    limit: int = 0,
) -> Iterator[tuple[int, int, FrameMask]]:
    """Follows objects through the frames.

    The prompted frames of an object are segmented first and always remembered. Then it is followed backward
    from its first prompted frame, and, with the memory of that way forgotten, forward over all that come
    after, to its end: three frames in a row without it. A prompted frame further on takes it up again.

    Args:
        predictor: the network.
        frames: the image's frames.
        digest: of the image's content.
        objects: per object, its prompts by frame index; none is empty.
        bounds: half-open range of the frames to visit; all when None. Prompted frames are visited anyway.
        limit: most frames to go beyond the first and the last prompted one; 0 for no limit.

    Yields:
        The object's position in ``objects``, the frame's index, and the result there. Frames that are not
        yielded do not hold the object.
    """
    tracks = [_Track(number, prompts, predictor.new_bank()) for number, prompts in enumerate(objects)]
    low, high = bounds if bounds is not None else (0, len(frames))
    for index in sorted({index for track in tracks for index in track.prompts}):
        for track in tracks:
            if index in track.prompts:
                result = predictor.segment(frames, digest, index, track.prompts[index], track.bank)
                yield track.number, index, result

    for index in reversed(range(low, high)):
        for track in tracks:
            near = not limit or track.first - index <= limit
            if index < track.first and near and not track.ended:
                yield track.number, index, _follow(predictor, frames, digest, index, track, reverse=True)

    for track in tracks:
        track.turn()
    for index in range(low, high):
        for track in tracks:
            if index in track.prompts:
                track.absent = 0
                continue
            near = not limit or index - track.last <= limit
            if index > track.first and near and not track.ended:
                yield track.number, index, _follow(predictor, frames, digest, index, track, reverse=False)


def _follow(
    predictor: Predictor, frames: Frames, digest: str, index: int, track: _Track, reverse: bool
) -> FrameMask:
    result = predictor.track(frames, digest, index, track.bank, reverse)
    track.saw(result)
    return result
