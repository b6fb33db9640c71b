from __future__ import annotations

import numpy as np

from lib.engine.frames import SingleFrame
from lib.transforms.frames import FrameStack
from lib.transforms.windowing import IntensityWindow


def test_every_place_shows_the_same_frame_under_its_own_key() -> None:
    volume = np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2)
    frames = FrameStack(volume, 2, IntensityWindow(0.0, 23.0, "request"))
    still = SingleFrame(frames, 1, 7)
    assert (len(still), still.height, still.width) == (7, 3, 4)
    for place in (0, 1, 6):
        np.testing.assert_array_equal(still[place], frames[1])
        assert still.key(place) == frames.key(1) != frames.key(0)
