import numpy as np
import pytest

from benchmarks.baselines import Click, filled_box, grabcut, random_walk
from lib.metrics.segmentation import dice


@pytest.fixture
def scene():
    """A bright ellipse off the diagonal on a dark noisy ground: levels (60, 80, 3) and its mask."""
    y, x = np.mgrid[:60, :80]
    mask = ((x - 52) / 14) ** 2 + ((y - 22) / 9) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 6, mask.shape)
    grey = np.clip(np.where(mask, 190, 60) + noise, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), mask


def test_grabcut_finds_a_clear_object_in_its_box(scene):
    levels, mask = scene
    assert dice(grabcut(levels, (36, 11, 68, 33)), mask) > 0.95


def test_grabcut_stays_inside_the_box(scene):
    levels, _ = scene
    levels[40:55, 5:25] = 190  # as bright as the object
    found = grabcut(levels, (36, 11, 68, 33))
    assert not found[:, :36].any()
    assert not found[33:].any()


def test_a_box_around_everything_is_everything(scene):
    levels, _ = scene
    assert grabcut(levels, (0, 0, 80, 60)).all()


def test_random_walker_finds_a_clear_object_from_one_click(scene):
    levels, mask = scene
    assert dice(random_walk(levels, [Click(52, 22, True)]), mask) > 0.95


def test_a_negative_click_is_background(scene):
    levels, mask = scene
    found = random_walk(levels, [Click(52, 22, True), Click(10, 50, False)])
    assert found[22, 52]
    assert not found[50, 10]
    assert dice(found, mask) > 0.9


def test_a_filled_box_is_half_open():
    assert np.argwhere(filled_box((5, 6), (4, 1, 6, 2))).tolist() == [[1, 4], [1, 5]]
