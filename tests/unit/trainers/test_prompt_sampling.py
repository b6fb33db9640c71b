import numpy as np

from lib.prompts.types import FramePrompts
from lib.trainers.prompt_sampling import KINDS, correct, draw_kind, draw_prompts

MASK = np.zeros((40, 60), bool)
MASK[5:15, 30:50] = True


def test_shares_are_those_of_the_table():
    rng = np.random.default_rng(0)
    drawn = [draw_kind(rng).name for _ in range(4000)]
    for kind in KINDS:
        assert abs(drawn.count(kind.name) / 4000 - kind.share) < 0.03


def test_clicks_are_drawn_over_the_whole_object():
    rng = np.random.default_rng(0)
    points = np.concatenate([draw_prompts(KINDS[1], MASK, rng).points for _ in range(1000)])
    assert MASK[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    assert len(np.unique(points, axis=0)) == MASK.sum()


def test_an_empty_mask_is_prompted_anywhere_on_the_frame():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        prompts = draw_prompts(kind, np.zeros((30, 50), bool), rng)
        assert prompts.has_positive
        assert (len(prompts.points), prompts.box is not None) == (kind.clicks, kind.box)
        assert (prompts.points < [50, 30]).all()


def test_a_correction_is_added_to_what_was_sent_before():
    first = FramePrompts(points=[[35, 8]], labels=[1])
    found = MASK.copy()
    found[20:38, 2:20] = True
    mended = correct(first, MASK, found, np.random.default_rng(0))
    assert mended.points[0].tolist() == [35, 8]
    x, y = mended.points[1].astype(int)
    assert mended.labels.tolist() == [1, 0]
    assert found[y, x]
    assert not MASK[y, x]


def test_a_missed_part_is_clicked_positive_and_a_right_answer_somewhere_inside():
    first = FramePrompts(points=[[35, 8]], labels=[1])
    rng = np.random.default_rng(0)
    assert correct(first, MASK, np.zeros_like(MASK), rng).labels.tolist() == [1, 1]
    right = correct(first, MASK, MASK, rng)
    x, y = right.points[1].astype(int)
    assert MASK[y, x]
    assert right.labels.tolist() == [1, 1]
