import numpy as np
import pytest

from lib.errors import PromptError
from lib.prompts.simulation import central_click, correction_click, jittered_box, random_clicks, tight_box


def drawn(height=40, width=60, *, x=(50, 57), y=(3, 8)):
    """A rectangle far off the diagonal: x and y mistaken for each other would miss it."""
    mask = np.zeros((height, width), np.uint8)
    mask[y[0] : y[1], x[0] : x[1]] = 1
    return mask


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_random_clicks_are_in_the_object_and_differ(rng):
    clicks = random_clicks(drawn(), 10, rng)
    assert clicks.shape == (10, 2)
    assert clicks.dtype == np.float32
    assert ((clicks >= (50, 3)) & (clicks < (57, 8))).all()
    assert len(np.unique(clicks, axis=0)) == 10


def test_random_clicks_are_uniform_over_the_object(rng):
    clicks = np.concatenate([random_clicks(drawn(), 5, rng) for _ in range(1400)])
    _, counts = np.unique(clicks, axis=0, return_counts=True)
    assert len(counts) == 35
    assert np.abs(counts - 200).max() < 5 * np.sqrt(200)  # 7000 clicks on 35 pixels, five deviations


def test_random_clicks_repeat_only_on_an_object_with_too_few_pixels(rng):
    assert random_clicks(drawn(x=(50, 51), y=(3, 4)), 3, rng).tolist() == [[50, 3]] * 3


def test_random_clicks_are_the_same_for_the_same_seed():
    first, second = (random_clicks(drawn(), 5, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)


def test_central_click_is_in_the_middle():
    assert central_click(drawn(x=(50, 55), y=(3, 8))) == (52, 5)


def test_central_click_keeps_away_from_the_image_edge():
    assert central_click(np.ones((5, 5))) == (2, 2)


def test_central_click_is_on_a_ring_not_in_its_hole():
    y, x = np.mgrid[:40, :60]
    radius = np.hypot(x - 45, y - 15)
    ring = (radius < 12) & (radius > 6)
    x, y = central_click(ring)
    assert ring[y, x]


def test_tight_box_is_half_open():
    box = tight_box(drawn())
    assert box.tolist() == [50, 3, 57, 8]
    assert box.dtype == np.float32


def test_jittered_box_moves_by_a_tenth_of_its_side(rng):
    mask = drawn(500, 500, x=(200, 300), y=(100, 150))
    noise = np.array([jittered_box(mask, rng) for _ in range(2000)]) - tight_box(mask)
    assert np.abs(noise).max() <= 20
    assert noise.mean(0) == pytest.approx([0, 0, 0, 0], abs=0.9)
    # Normal noise of deviation 10, cut at two deviations, has a deviation of 9.6; 5 is not cut.
    assert noise.std(0) == pytest.approx([9.6, 5, 9.6, 5], rel=0.05)


def test_jittered_box_stays_inside_the_image_with_an_area(rng):
    for mask in (drawn(), drawn(x=(59, 60), y=(39, 40)), np.ones((40, 60))):
        for jitter in (0.1, 5.0):
            for _ in range(100):
                x0, y0, x1, y1 = jittered_box(mask, rng, jitter)
                assert 0 <= x0 <= x1 - 1 <= 59
                assert 0 <= y0 <= y1 - 1 <= 39


def test_correction_adds_what_is_missing():
    assert correction_click(drawn(x=(50, 55), y=(3, 8)), np.zeros((40, 60))) == (52, 5, True)


def test_correction_removes_what_is_too_much():
    assert correction_click(np.zeros((40, 60)), drawn(x=(50, 55), y=(3, 8))) == (52, 5, False)


def test_correction_goes_to_the_largest_error():
    truth = drawn(x=(50, 53), y=(3, 6)) | drawn(x=(20, 25), y=(30, 35))
    excess = drawn(x=(5, 9), y=(10, 14))
    assert correction_click(truth, excess) == (22, 32, True)


def test_correction_of_a_right_answer_is_none():
    assert correction_click(drawn(), drawn()) is None


def test_correction_chooses_among_equally_central_pixels(rng):
    line = drawn(x=(40, 50), y=(3, 4))
    clicks = {correction_click(line, np.zeros((40, 60)), rng) for _ in range(100)}
    assert clicks == {(x, 3, True) for x in range(40, 50)}


@pytest.mark.parametrize("simulate", [central_click, tight_box])
@pytest.mark.parametrize(("mask", "reason"), [(np.zeros((4, 4)), "empty"), (np.ones((2, 4, 4)), "H, W")])
def test_a_mask_without_an_object_is_refused(simulate, mask, reason):
    with pytest.raises(PromptError, match=reason):
        simulate(mask)


def test_correction_needs_equal_shapes():
    with pytest.raises(PromptError, match="equal shapes"):
        correction_click(np.ones((4, 4)), np.ones((4, 5)))
