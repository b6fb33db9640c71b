from lib.trainers.acceptance import judge
from lib.trainers.validation import BOX, CLICK, CLICKS, FAR, TRACKED, Measurement


def measurement(click=0.5, clicks=0.6, box=0.7, tracked=0.6, far=0.01):
    return Measurement({CLICK: click, CLICKS: clicks, BOX: box, TRACKED: tracked, FAR: far})


def test_better_weights_are_published():
    decision = judge(measurement(), measurement(click=0.6), 0.005)
    assert decision.accepted
    assert "0.600 before, 0.625 after" in decision.reason


def test_equal_or_worse_or_hardly_better_ones_are_not():
    for after in (measurement(), measurement(click=0.51), measurement(click=0.2)):
        decision = judge(measurement(), after, 0.005)
        assert not decision.accepted
        assert "0.005" in decision.reason


def test_a_gain_must_not_be_paid_for_by_one_kind_of_prompt():
    decision = judge(measurement(), measurement(click=0.9, tracked=0.5), 0.005)
    assert not decision.accepted
    assert "tracked Dice fell from 0.600 to 0.500" in decision.reason


def test_weights_that_ignore_their_prompts_are_not_published():
    for before in (measurement(), measurement(click=0.1, far=0.02)):
        decision = judge(before, measurement(click=0.9, far=0.6), 0.005)
        assert not decision.accepted
        assert "far" in decision.reason


def test_of_small_objects_even_a_small_overlap_is_ignorance():
    before = measurement(click=0.05, clicks=0.05, box=0.05, tracked=0.05)
    after = measurement(click=0.2, clicks=0.2, box=0.2, tracked=0.2, far=0.2)
    assert not judge(before, after, 0.005).accepted


def test_pictures_have_nothing_to_track():
    before = Measurement({CLICK: 0.5, CLICKS: 0.6, BOX: 0.7})
    assert judge(before, Measurement({CLICK: 0.6, CLICKS: 0.6, BOX: 0.7}), 0.005).accepted
