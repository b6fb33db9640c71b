"""Frames on a way through an image, read and resized by a thread before the network comes to them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from lib.engine.frames import FrameSequence, FramesOfImage
from lib.engine.network import network_image

# Frames that are ready before they are needed: at 1024 px each takes 13 MB.
AHEAD = 4


class FramesAhead(FramesOfImage):
    """A sequence of frames that also gives the network's images of them, prepared along a way.

    Args:
        frames: Frames of the image.
        way: Indices of the frames in the order in which they are visited.
    """

    def __init__(self, frames: FrameSequence, way: Sequence[int]) -> None:
        self.frames = frames
        self._way = list(way)
        self._place = {index: place for place, index in enumerate(self._way)}
        self._images: dict[int, Future[torch.Tensor]] = {}
        self._thread = ThreadPoolExecutor(1, "frames-ahead")

    def __enter__(self) -> FramesAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def onward(self, index: int, count: int) -> list[int]:
        """A frame and those that are visited after it, ``count`` in all at most."""
        place = self._place.get(index)
        return [index] if place is None else self._way[place : place + count]

    def image(self, index: int, size: int) -> torch.Tensor:
        """The network's image of a frame, (1, 3, size, size); those after it are prepared from now on."""
        prepared = self._images.pop(index, None)
        for following in self.onward(index, AHEAD + 1)[1:]:
            if following not in self._images:
                self._images[following] = self._thread.submit(self._prepare, following, size)
        return self._prepare(index, size) if prepared is None else prepared.result()

    def _prepare(self, index: int, size: int) -> torch.Tensor:
        return network_image(self.frames[index], size)
