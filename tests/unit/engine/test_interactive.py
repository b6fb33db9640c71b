"""What a person is answered on one frame: clicks obeyed, corrections local, small boxes looked at closely."""

import numpy as np
import pytest
import torch

from lib.engine.interactive import LEAST_SIDE, AnswerCache, InteractiveSegmenter
from lib.engine.memory import MemoryBank
from lib.engine.predictor import FrameMask
from lib.prompts.types import FramePrompts
from tests.unit.engine.conftest import ArrayFrames

SIDE = 400


class Scripted:
    """A predictor that answers a square around each positive click, or the box; it notes each call."""

    key = "weights"
    image_size = 256

    def __init__(self, half: int = 10) -> None:
        self.half = half
        self.calls: list[tuple[int, int]] = []

    def segment(self, frames, index, prompts, bank=None):
        self.calls.append((frames.width, frames.height))
        mask = np.zeros((frames.height, frames.width), bool)
        for (x, y), label in zip(prompts.points.astype(int), prompts.labels, strict=True):
            if label:
                mask[max(0, y - self.half) : y + self.half, max(0, x - self.half) : x + self.half] = True
        if prompts.box is not None:
            x0, y0, x1, y1 = prompts.box.astype(int)
            mask[y0:y1, x0:x1] = True
        if prompts.is_mask_alone:
            mask = prompts.mask
        if bank is not None:
            bank.add_prompted(index, {"mask": mask})
        return FrameMask(mask, 0.8, 0.9)


@pytest.fixture
def frames() -> ArrayFrames:
    return ArrayFrames(np.zeros((1, SIDE, SIDE, 3), np.uint8))


def clicks(*places: tuple[int, int, int], **others) -> FramePrompts:
    return FramePrompts([place[:2] for place in places], [place[2] for place in places], **others)


def test_each_click_is_obeyed_without_any_earlier_answer(frames):
    mask = InteractiveSegmenter(Scripted()).segment(frames, 0, clicks((100, 100, 1), (103, 101, 0))).mask
    assert mask[100, 100]
    assert not mask[101, 103]


def test_a_correction_is_local_and_undo_gives_the_earlier_answer(frames):
    segmenter = InteractiveSegmenter(predictor := Scripted(), AnswerCache(), "a client")
    first = segmenter.segment(frames, 0, clicks((100, 100, 1))).mask
    predictor.half = 14  # the network would now grow the mask on all sides
    second = segmenter.segment(frames, 0, clicks((100, 100, 1), (103, 101, 0))).mask
    assert (first & ~second).sum() == 1
    assert (second & ~first).sum() == 0
    predictor.calls.clear()
    assert (segmenter.segment(frames, 0, clicks((100, 100, 1))).mask == first).all()
    assert predictor.calls == []  # known, and the network is spared
    other = InteractiveSegmenter(predictor, segmenter.answers, "another client")
    assert other.segment(frames, 0, clicks((100, 100, 1), (103, 101, 0))).mask.sum() > first.sum()


def test_a_starting_mask_changes_only_where_clicks_correct_it(frames):
    start = np.zeros((SIDE, SIDE), bool)
    start[10:60, 10:60] = True
    prompts = clicks((62, 30, 1), mask=start)
    found = InteractiveSegmenter(Scripted()).segment(frames, 0, prompts).mask
    assert (found & start).sum() == start.sum()
    assert found[30, 62]
    alone = InteractiveSegmenter(Scripted()).segment(frames, 0, FramePrompts.of_mask(start))
    assert (alone.mask == start).all()


def test_the_memory_holds_what_was_answered(frames):
    bank = MemoryBank(4)
    answer = InteractiveSegmenter(Scripted()).segment(frames, 0, clicks((50, 50, 1), (53, 50, 0)), bank)
    held = bank.recall(0, False, torch.ones(1))["cond_frame_outputs"][0]["mask"]
    assert (held == answer.mask).all()


def test_a_small_box_is_looked_at_in_a_window_alone_and_a_large_one_on_the_frame(frames):
    predictor = Scripted()
    segmenter = InteractiveSegmenter(predictor, zoom="boxes")
    small, large = (
        FramePrompts.of_box(np.array(box, float)) for box in ((30, 40, 50, 55), (30, 40, 350, 300))
    )
    mask = segmenter.segment(frames, 0, small).mask
    assert predictor.calls == [(LEAST_SIDE, LEAST_SIDE)]
    assert (np.argwhere(mask).min(0).tolist(), np.argwhere(mask).max(0).tolist()) == ([40, 30], [54, 49])
    segmenter.segment(frames, 0, large)
    segmenter.segment(frames, 0, clicks((100, 100, 1)))
    assert predictor.calls[1:] == [(SIDE, SIDE)] * 2


def test_clicks_are_zoomed_after_a_first_look_and_a_mask_beyond_the_window_is_not_taken(frames):
    predictor = Scripted()
    found = InteractiveSegmenter(predictor, zoom="all").segment(frames, 0, clicks((100, 100, 1)))
    assert predictor.calls == [(SIDE, SIDE), (LEAST_SIDE, LEAST_SIDE)]
    assert found.mask.sum() == 400

    class Growing(Scripted):
        def segment(self, frames, index, prompts, bank=None):
            self.half = 10 if frames.width == SIDE else 60
            return super().segment(frames, index, prompts, bank)

    found = InteractiveSegmenter(Growing(), zoom="all").segment(frames, 0, clicks((100, 100, 1)))
    assert found.mask.sum() == 400
