"""What is remembered of one object while it is followed from frame to frame."""

from __future__ import annotations

from typing import Any


class MemoryBank:
    """SAM 2's memory of one object: every prompted frame, and the last tracked frames.

    Prompted frames are never dropped, so a correction keeps its weight. Tracked frames are kept as long as
    the network can look back (``reach`` frames), and forgotten when the direction turns.

    Args:
        reach: how many frames back the network looks: the larger of its memories and its object pointers.
    """

    def __init__(self, reach: int):
        self._reach = reach
        self._prompted: dict[int, dict[str, Any]] = {}
        self._tracked: dict[int, dict[str, Any]] = {}

    def add_prompted(self, frame: int, memory: dict[str, Any]) -> None:
        """Remembers a frame that a person prompted."""
        self._prompted[frame] = memory

    def add_tracked(self, frame: int, memory: dict[str, Any]) -> None:
        """Remembers a frame that the network segmented, and forgets the oldest beyond its reach."""
        self._tracked[frame] = memory
        while len(self._tracked) > self._reach:
            del self._tracked[next(iter(self._tracked))]

    def copy(self) -> MemoryBank:
        """A bank of the same memories that goes its own way."""
        other = MemoryBank(self._reach)
        other._prompted = dict(self._prompted)
        other._tracked = dict(self._tracked)
        return other

    def neighbour(self, frame: int, reverse: bool) -> dict[str, Any] | None:
        """The memory of the frame that was visited before a frame; None where it was not remembered."""
        before = frame + 1 if reverse else frame - 1
        return self._prompted.get(before, self._tracked.get(before))

    def forget_tracked(self) -> None:
        """Forgets all but the prompted frames, before the other direction is followed."""
        self._tracked.clear()

    def as_output_dict(self) -> dict[str, dict[int, Any]]:
        """The bank in the form that SAM 2's memory attention reads."""
        return {"cond_frame_outputs": self._prompted, "non_cond_frame_outputs": self._tracked}
