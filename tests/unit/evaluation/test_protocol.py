import numpy as np

from lib.evaluation.protocol import MetricRules, Prompt, PromptSampler, batches
from tests.support.phantoms import ellipsoid

MASK = ellipsoid((50, 80), (20, 60), (9, 14))


def drawn(kind="click", clicks=3, seed=0, case="a", value=1, frame=0, jitter=0.0):
    return PromptSampler(seed, case, jitter).draw(Prompt(kind, clicks), MASK, value, frame)


def test_clicks_lie_on_the_object_and_are_all_positive():
    for count in (1, 3, 5):
        prompts = drawn(clicks=count)
        x, y = prompts.points.astype(int).T
        assert MASK[y, x].all()
        assert prompts.labels.tolist() == [1] * count
        assert len({tuple(point) for point in prompts.points.tolist()}) == count


def test_the_same_question_gets_the_same_clicks():
    assert (drawn().points == drawn().points).all()


def test_another_question_gets_other_clicks():
    for other in ({"seed": 1}, {"case": "b"}, {"value": 2}, {"frame": 1}, {"clicks": 5}):
        assert (drawn().points != drawn(**other).points[:3]).any()


def test_a_box_is_tight_or_drawn_as_by_a_person():
    assert drawn("box", 0).box.tolist() == [46, 11, 75, 30]
    loose = drawn("box", 0, jitter=0.1).box
    assert 0 < np.abs(loose - drawn("box", 0).box).max() <= 20
    assert (loose == drawn("box", 0, jitter=0.1).box).all()


def test_a_mask_is_the_truth():
    assert (drawn("mask", 0).mask == MASK).all()


def test_prompts_have_names_for_tables():
    names = [Prompt("click", 1).name, Prompt("click", 3).name, Prompt("box").name, Prompt("mask").name]
    assert names == ["1 click", "3 clicks", "box", "mask"]


def test_a_class_has_its_own_tolerance_or_the_default():
    rules = MetricRules(tolerance_mm={"liver": 5.0}, default_tolerance_mm=2.0)
    assert (rules.tolerance("liver"), rules.tolerance("aorta")) == (5.0, 2.0)


def test_all_metrics_are_wanted_unless_some_are_named():
    assert MetricRules().wants("hd95")
    assert not MetricRules(metrics=("dice",)).wants("hd95")


def test_batches_hold_every_object_once():
    assert list(batches([1, 2, 3, 4, 5], 2)) == [(1, 2), (3, 4), (5,)]
    assert list(batches([], 2)) == []
