from dataclasses import replace

import numpy as np
import pytest

from lib.engine.interactive import (
    FAR_SHARE,
    AnswerCache,
    averaged,
    local_correction,
    mixed,
    obey,
    without_islands,
)
from lib.engine.predictor import UNKNOWN_LOGIT, FrameMask, MaskLogits
from lib.prompts.types import FramePrompts
from lib.transforms.frames import Crop


def drawn(rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows.split("/")])


def prompts(*clicks: tuple[float, float, int], **others) -> FramePrompts:
    return FramePrompts([click[:2] for click in clicks], [click[2] for click in clicks], **others)


# Mask before, network's proposal, click, its sign, mask after.
CORRECTIONS = {
    "added where the click is": ("##..../##....", "####../#....#", (3, 0), True, "####../##...."),
    "removed where the click is": ("######/######", "##..#./##..##", (3, 0), False, "##..##/##..##"),
    "a click beside its piece takes it": ("##..../......", "####../......", (4, 1), True, "####../......"),
    "a click that the network ignores": ("##..../......", "#...../......", (5, 1), True, "##..../......"),
    "a click that starts another part": ("##..../......", "#...##/....##", (5, 0), True, "#...##/....##"),
    "nothing was there before": ("....../......", "##..../....##", (0, 0), True, "##..../....##"),
    "pieces that share a corner are one": (
        "#...../......",
        ".#..../..#...",
        (2, 1),
        True,
        "##..../..#...",
    ),
}


@pytest.mark.parametrize("case", CORRECTIONS)
def test_a_correction_changes_the_mask_where_it_was_made(case):
    before, proposed, click, positive, after = CORRECTIONS[case]
    assert (local_correction(drawn(before), drawn(proposed), click, positive) == drawn(after)).all()


def test_clicks_and_scribbles_are_obeyed():
    mask = drawn("##../##../....")
    known = [[3, 2, 1], [0, 1, 0], [99, 0, 1]]
    found = obey(mask, prompts((0, 0, 0), (2.4, 0, 1), (-5, 40, 1), known=np.array(known, np.int32)))
    assert (found == drawn(".##./.#../#..#")).all()
    assert mask[0, 0], "the mask itself is left as it was"


def test_the_later_of_two_clicks_on_a_pixel_counts():
    assert not obey(drawn("#"), prompts((0, 0, 1), (0.2, 0, 0)))[0, 0]


def answer(rows: str) -> FrameMask:
    return FrameMask(drawn(rows), 0.5, 0.9)


A, B, C = (1.0, 2.0, 1), (5.0, 2.0, 0), (7.0, 1.0, 1)


def test_the_predecessor_is_found_whatever_the_order_of_the_clicks():
    cache = AnswerCache()
    cache.put("frame", prompts(A, B), answer("#.#/..#"))
    found, index = cache.before("frame", prompts(C, B, A))
    assert index == 0
    assert (found.mask == drawn("#.#/..#")).all()
    assert (found.score, found.presence) == (0.5, 0.9)
    assert cache.before("another frame", prompts(C, B, A)) is None
    assert cache.before("frame", prompts(A, B)) is None
    assert cache.before("frame", prompts(A, B, C, box=[0, 0, 1, 1])) is None


def test_undo_finds_its_own_answer_and_the_latest_predecessor_counts():
    cache = AnswerCache()
    cache.put("frame", prompts(A), answer("#"))
    cache.put("frame", prompts(A, B), answer("."))
    cache.put("frame", prompts(A, C), answer("#"))
    assert cache.get("frame", prompts(A)).mask[0, 0]
    assert not cache.get("frame", prompts(B, A)).mask[0, 0]
    found, index = cache.before("frame", prompts(A, B, C))
    assert (index, bool(found.mask[0, 0])) == (1, True)


def test_the_cache_is_bounded_and_forgets_the_least_recent():
    cache = AnswerCache(size=5)  # two answers of a byte and a byte of overhead each
    for place in range(3):
        cache.put("frame", prompts((place, 0, 1)), answer("#."))
    assert cache.get("frame", prompts((0, 0, 1))) is None
    assert cache.get("frame", prompts((2, 0, 1))) is not None
    AnswerCache(size=1).put("frame", prompts(A), answer("#." * 8))


def with_logits(value: float, crop: Crop | None = None) -> FrameMask:
    logits = MaskLogits(np.full((20, 20), value, np.float16), crop)
    return FrameMask(logits.mask(100, 100), 0.5, 0.9, logits)


def test_new_logits_count_whole_at_the_click_and_by_half_far_from_it():
    found = averaged(with_logits(6), with_logits(-4), (12, 22))
    values = found.logits.values
    assert values[4, 2] == pytest.approx(-4, abs=0.01), (
        "the cell of pixels 10 to 14 along x and 20 to 24 along y"
    )
    assert values[19, 19] == pytest.approx(FAR_SHARE * -4 + (1 - FAR_SHARE) * 6)
    assert not found.mask[22, 12]
    assert found.mask[90, 90]


@pytest.mark.parametrize(
    "before",
    [answer("#"), with_logits(-1)],
    ids=["without logits", "with nothing found"],
)
def test_only_comparable_answers_are_averaged(before):
    proposed = with_logits(-4)
    assert averaged(before, proposed, (12, 22)) is proposed


def test_a_closer_look_is_averaged_with_the_first_on_its_own_grid():
    found = mixed(with_logits(6), with_logits(-2, Crop(50, 0, 100, 50)), 0.75)
    assert found.logits.crop == Crop(50, 0, 100, 50)
    assert np.allclose(found.logits.values, 0, atol=0.01)
    near = with_logits(-2)
    assert mixed(answer("#"), near, 0.75) is near, "an answer without logits counts for nothing"


def test_the_cache_keeps_the_logits():
    cache = AnswerCache()
    cache.put("frame", prompts(A), with_logits(6))
    assert (cache.get("frame", prompts(A)).logits.values == 6).all()


def test_answers_of_different_windows_are_averaged_where_they_lie_in_the_frame():
    # A frame of 100 x 100 pixels: the answer before saw its left upper quarter, the new one all of it.
    found = averaged(with_logits(6, Crop(0, 0, 50, 50)), with_logits(-4), (99, 99)).logits.values
    inside, beyond = FAR_SHARE * -4 + (1 - FAR_SHARE) * 6, FAR_SHARE * -4 + (1 - FAR_SHARE) * -UNKNOWN_LOGIT
    assert np.allclose(found[:10, :10], inside, atol=0.01)
    assert np.allclose(found[:10, 10:], beyond, atol=0.01)
    # The other way round a ramp along x of the whole frame is read off in the window's own cells.
    ramp = with_logits(0)
    ramp = replace(ramp, logits=MaskLogits(np.tile(np.arange(-9.5, 10), (20, 1)).astype(np.float16)))
    window = MaskLogits(np.zeros((20, 20), np.float16), Crop(50, 0, 100, 50))
    expected = np.interp(51.25 + 2.5 * np.arange(20), 2.5 + 5 * np.arange(20), np.arange(-9.5, 10))
    assert np.allclose(ramp.logits.on_grid_of(window, 100, 100), expected, atol=0.01)


def test_only_clicked_pieces_and_large_ones_stay():
    one, mask = prompts((0, 0, 1), (7, 3, 0)), drawn("####../####../....##")
    assert (without_islands(mask, one) == mask).all(), "pieces that share a corner are one"
    large = drawn("####.##/####.../.......")
    assert (without_islands(large, one) == large).all()
    assert (without_islands(drawn("####.#/####../......"), one) == drawn("####../####../......")).all()
    assert (without_islands(drawn("####.#/####../......"), prompts((5, 0, 1), (0, 0, 1))).sum()) == 9
    assert without_islands(mask, prompts((7, 3, 1))) is mask, "no click in the mask"
