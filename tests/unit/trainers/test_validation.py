"""Measuring, with predictors whose answer is known: stand-ins for a network, since truths are asked for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lib.engine.predictor import FrameMask
from lib.trainers.validation import (
    BOX,
    CLICK,
    CLICKS,
    FAR,
    TRACKED,
    Measurement,
    choose_targets,
    judge,
    measure,
)
from tests.unit.trainers.conftest import SIZE


class Knowing:
    """Answers a prompt with the object under its first click or in its box, and tracks what it was shown."""

    def __init__(self, images, answer=lambda mask: mask):
        self._images = {image.digest: image for image in images}
        self._answer = answer

    def new_bank(self, policy="fifo"):
        return SimpleNamespace(forget_tracked=lambda: None, policy="fifo", joint_key=None, value=None)

    def segment(self, frames, index, prompts, bank=None):
        image = self._images[frames.digest]
        value = self._value(image, index, prompts)
        if bank is not None:
            bank.value = value
        return self._mask(image, index, value)

    def track(self, frames, index, bank, reverse, prompts=None):
        return self._mask(self._images[frames.digest], index, bank.value)

    def _mask(self, image, index, value):
        return FrameMask(self._answer(image.mask(index, value)), 1.0, 1.0)

    @staticmethod
    def _value(image, index, prompts):
        masks = {value: image.mask(index, value) for value in image.names}
        if prompts.box is None:
            x, y = prompts.points[0].astype(int)
            return next((value for value, mask in masks.items() if mask[y, x]), 0)
        x0, y0, x1, y1 = prompts.box.astype(int)
        return max(masks, key=lambda value: masks[value][y0:y1, x0:x1].sum())


def result(predictor, targets):
    *steps, last = measure(predictor, targets)
    assert steps.count(None) == len(steps)
    return last


@pytest.fixture
def targets(images):
    return choose_targets(images, SIZE, 12)


def test_who_knows_the_truth_gets_one_and_is_not_misled_by_a_far_click(images, targets):
    measurement = result(Knowing(images), targets)
    for kind in (CLICK, CLICKS, BOX, TRACKED):
        assert measurement.means[kind] == 1.0
    assert measurement.score == 1.0
    assert measurement.means[FAR] == 0.0
    assert set(measurement.masks) == set(targets)
    # Three prompts on each object; what is said and what is true agree.
    assert measurement.confidences == measurement.ious == [1.0] * (3 * len(targets))


def test_who_says_nothing_gets_zero(images, targets):
    measurement = result(Knowing(images, np.zeros_like), targets)
    assert measurement.score == 0.0
    assert measurement.means[FAR] == 0.0
    assert measurement.ious == [0.0] * (3 * len(targets))


def test_who_always_says_everything_is_found_out_by_the_far_click(images, targets):
    measurement = result(Knowing(images, np.ones_like), targets)
    assert measurement.means[FAR] == pytest.approx(measurement.means[CLICK])
    assert measurement.means[FAR] > 0.05


def test_targets_are_the_same_each_time_and_spread_over_images_and_classes(images):
    first, again = (choose_targets(images, SIZE, 12) for _ in range(2))
    assert [(t.place, t.value) for t in first] == [(t.place, t.value) for t in again]
    assert {t.image.id for t in first} == {"case0", "case1", "case2"}
    assert {t.value for t in first} == {1, 2}
    assert len(first) == 12
    assert len(choose_targets(images, SIZE, 5)) == 5


def test_prompts_are_the_same_for_every_network(images):
    one, other = choose_targets(images, SIZE, 4), choose_targets(images, SIZE, 4)
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.prompts[CLICKS].points, b.prompts[CLICKS].points)
        assert np.array_equal(a.prompts[BOX].box, b.prompts[BOX].box)


def test_a_far_click_is_far(targets):
    for target in targets:
        (x, y) = target.prompts[FAR].points[0].astype(int)
        ys, xs = np.nonzero(target.truth)
        assert np.hypot(xs - x, ys - y).min() > 0.15 * np.hypot(*target.truth.shape)


def measurement(click=0.5, clicks=0.6, box=0.7, tracked=0.6, far=0.01):
    return Measurement({CLICK: click, CLICKS: clicks, BOX: box, TRACKED: tracked, FAR: far})


def test_better_weights_are_published_and_others_are_not():
    decision = judge(measurement(), measurement(click=0.6), 0.005)
    assert decision.accepted
    assert "0.600 before, 0.625 after" in decision.reason

    # Equal or worse or hardly better ones are not.
    for after in (measurement(), measurement(click=0.51), measurement(click=0.2)):
        decision = judge(measurement(), after, 0.005)
        assert not decision.accepted
        assert "0.005" in decision.reason

    # A gain must not be paid for by one kind of prompt.
    decision = judge(measurement(), measurement(click=0.9, tracked=0.5), 0.005)
    assert not decision.accepted
    assert "tracked Dice fell from 0.600 to 0.500" in decision.reason

    # Weights that ignore their prompts are not published.
    for before in (measurement(), measurement(click=0.1, far=0.02)):
        decision = judge(before, measurement(click=0.9, far=0.6), 0.005)
        assert not decision.accepted
        assert "far" in decision.reason

    # Of small objects even a small overlap is ignorance.
    before = measurement(click=0.05, clicks=0.05, box=0.05, tracked=0.05)
    after = measurement(click=0.2, clicks=0.2, box=0.2, tracked=0.2, far=0.2)
    assert not judge(before, after, 0.005).accepted


def test_pictures_have_nothing_to_track():
    before = Measurement({CLICK: 0.5, CLICKS: 0.6, BOX: 0.7})
    assert judge(before, Measurement({CLICK: 0.6, CLICKS: 0.6, BOX: 0.7}), 0.005).accepted
