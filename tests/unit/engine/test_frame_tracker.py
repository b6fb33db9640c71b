"""Which frame goes on from which, told from boxes; the network is a stub that moves all by 3 pixels."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from lib.engine.frame_tracker import KEPT_SECONDS, MOST_KEPT, FrameTracker
from lib.engine.memory import MemoryBank
from lib.engine.predictor import FrameMask
from lib.prompts.types import FramePrompts
from tests.unit.engine.conftest import ArrayFrames

HEIGHT, WIDTH, STEP = 40, 60, 3


class Mover:
    """Segments what a box holds, and finds it again ``STEP`` pixels further right; nothing at the edge."""

    def __init__(self, key: str = "weights") -> None:
        self.key = key

    def new_bank(self) -> MemoryBank:
        return MemoryBank(4)

    def segment(self, frames: Any, index: int, prompts: FramePrompts, bank: MemoryBank):
        x0, y0, x1, y1 = (int(value) for value in prompts.box)
        mask = np.zeros((frames.height, frames.width), bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
        bank.add_prompted(index, {"mask": mask})
        return FrameMask(mask, 0.9, 0.9)

    def track(self, frames: Any, index: int, bank: MemoryBank, reverse: bool):
        before = bank.neighbour(index, reverse)
        assert before is not None, "the memory of the frame before is not there"
        mask = np.roll(before["mask"], STEP, axis=1)
        mask[:, :STEP] = False
        bank.add_tracked(index, {"mask": mask})
        return FrameMask(mask, 0.8, 0.8)


class Asking:
    """A client with one video: frames are plain pictures of a grey level, told apart by their numbers."""

    def __init__(
        self, tracker: FrameTracker, level: int = 100, size: tuple[int, int] = (HEIGHT, WIDTH)
    ) -> None:
        self.tracker, self.level, self.size = tracker, level, size

    def __call__(
        self, number: int, box: list[float], predictor: Any = None, client: str = "None"
    ) -> tuple[list[int] | None, int]:
        """The answer's box, as the client takes it from the outline, and the frame's place in its video."""
        pixels = np.full((1, *self.size, 3), self.level, np.uint8)
        frames = ArrayFrames(pixels, digest=f"{self.level} {number}")
        prompts = FramePrompts(points=[], labels=[], box=box)
        found, place = self.tracker.follow(predictor or Mover(), frames, 0, prompts, client)
        rows, columns = np.nonzero(found.mask)
        if not len(rows):
            return None, place
        return [int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max())], place


@pytest.fixture
def ask() -> Asking:
    return Asking(FrameTracker())


def test_the_answer_s_box_goes_on_and_the_memory_answers(ask: Asking) -> None:
    box, places = [5, 10, 15, 20], []
    for number in range(6):
        box, place = ask(number, box)
        places.append(place)
    assert places == [0, 1, 2, 3, 4, 5]
    assert box == [5 + 5 * STEP, 10, 15 + 5 * STEP, 20]


def test_the_drawn_box_goes_on_too_as_cvat_sends_it_twice(ask: Asking) -> None:
    assert ask(0, [5, 10, 15, 20]) == ([5, 10, 15, 20], 0)
    assert ask(1, [5, 10, 15, 20]) == ([8, 10, 18, 20], 1)


@pytest.mark.parametrize(("off", "place"), [(0, 1), (1, 1), (-1, 1), (2, 0), (-2, 0)])
def test_a_box_may_be_off_by_the_rounding_of_an_outline(ask: Asking, off: int, place: int) -> None:
    ask(0, [5, 10, 15, 20])
    assert ask(1, [5 + off, 10, 15, 20 - off])[1] == place


def test_a_frame_that_is_sent_again_is_answered_again(ask: Asking) -> None:
    first, _ = ask(0, [5, 10, 15, 20])
    assert ask(0, first)[1] == 0
    assert ask(1, first) == ask(1, first) == ([8, 10, 18, 20], 1)


def test_who_goes_back_takes_another_way_from_there(ask: Asking) -> None:
    box, boxes = [5, 10, 15, 20], []
    for number in range(5):
        box, _ = ask(number, box)
        boxes.append(box)
    assert ask(3, boxes[2]) == (boxes[3], 3)
    assert ask(30, boxes[1]) == (boxes[2], 2)


def test_objects_and_people_that_take_turns_do_not_mix() -> None:
    tracker = FrameTracker()
    one, other = Asking(tracker, level=60), Asking(tracker, level=200)
    boxes = {(who, y): [5, y, 15, y + 8] for who in (one, other) for y in (4, 24)}
    for number in range(8):
        for who, y in boxes:
            boxes[who, y], place = who(number, boxes[who, y])
            assert place == number
            assert boxes[who, y] == [5 + STEP * number, y, 15 + STEP * number, y + 8]


def test_the_same_box_on_two_videos_goes_on_with_its_own() -> None:
    tracker = FrameTracker()
    near, far = Asking(tracker, level=100), Asking(tracker, level=104)
    near(0, [5, 10, 15, 20])
    # Seen later, and less alike.
    far(0, [2, 10, 12, 20])
    assert far(1, [2, 10, 12, 20])[0] == [5, 10, 15, 20]
    assert near(1, [5, 10, 15, 20])[1] == 1
    # Both have an object at this box: the one on the frame that looks like this one counts.
    assert near(7, [5, 10, 15, 20])[1] == 1
    assert far(7, [5, 10, 15, 20])[1] == 2


@pytest.mark.parametrize("change", ["size", "weights", "client", "scene"])
def test_nothing_goes_on_into_another_size_or_weights_or_client_or_scene(change: str) -> None:
    tracker = FrameTracker()
    ask = Asking(tracker)
    ask(0, [5, 10, 15, 20])
    other = {
        "size": lambda: Asking(tracker, size=(HEIGHT, WIDTH + 1))(1, [5, 10, 15, 20]),
        "weights": lambda: ask(1, [5, 10, 15, 20], predictor=Mover("newer weights")),
        "client": lambda: ask(1, [5, 10, 15, 20], client="somebody"),
        "scene": lambda: Asking(tracker, level=240)(1, [5, 10, 15, 20]),
    }[change]
    assert other() == ([5, 10, 15, 20], 0)
    assert ask(1, [5, 10, 15, 20])[1] == 1


def test_an_object_that_is_gone_is_waited_for_at_its_last_box(ask: Asking) -> None:
    box = ask(0, [WIDTH - 2, 10, WIDTH - 1, 20])[0]
    assert ask(1, box) == (None, 1)
    assert ask(2, box) == (None, 2)


def test_little_is_kept_and_not_for_long() -> None:
    now = [0.0]
    tracker = FrameTracker(clock=lambda: now[0])
    ask = Asking(tracker)
    box, _ = ask(0, [1, 10, 11, 20])
    for number in range(1, MOST_KEPT):
        ask(1000 + number, [20, 1, 20 + number / 2, 30])
    assert ask(1, box)[1] == 1
    assert len(tracker) == MOST_KEPT
    assert ask(2, box)[1] == 0
    now[0] = KEPT_SECONDS + 1
    assert ask(3, box)[1] == 0
    assert len(tracker) == 1


def test_the_answer_is_the_piece_at_the_box_without_holes() -> None:
    class Broken(Mover):
        def segment(self, *arguments: Any):
            found = super().segment(*arguments)
            found.mask[12, 8] = False
            found.mask[22:40, 30:60] = True
            return found

    # A larger piece elsewhere is something that looks alike.
    assert Asking(FrameTracker())(0, [5, 10, 15, 20], predictor=Broken()) == ([5, 10, 15, 20], 0)


def test_the_largest_piece_counts_where_none_is_at_the_box() -> None:
    class Jumping(Mover):
        def track(self, *arguments: Any, **options: Any):
            found = super().track(*arguments, **options)
            found.mask[:] = False
            found.mask[2:4, 40:42] = found.mask[30:36, 40:48] = True
            return found

    ask = Asking(FrameTracker())
    box, _ = ask(0, [5, 10, 15, 20])
    assert ask(1, box, predictor=Jumping()) == ([40, 30, 47, 35], 1)


def test_threads_share_it() -> None:
    tracker = FrameTracker()
    wrong: list[str] = []

    def follow(level: int) -> None:
        ask, box = Asking(tracker, level), [5, 10, 15, 20]
        for number in range(6):
            box, place = ask(number, box)
            if place != number:
                wrong.append(f"{level}: {place} on frame {number}")

    threads = [threading.Thread(target=follow, args=(level,)) for level in (20, 60, 100, 140)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_points_are_no_video() -> None:
    frames = ArrayFrames(np.zeros((1, HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ValueError, match="box"):
        FrameTracker().follow(Mover(), frames, 0, FramePrompts(points=[[1, 1]], labels=[1]))
