"""Clips of known truth, and an object that moves followed from many prompted frames."""

import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.video import HIDDEN, MODELS, drawn_clips, follow, measure, measure_larger, report, scores
from lib.engine.predictor_pool import PredictorPool
from lib.metrics.segmentation import jaccard
from lib.settings import Settings

SHORT = 16


@pytest.fixture(scope="module")
def clips():
    return {clip.name: clip for clip in drawn_clips()}


def test_the_truth_is_what_is_drawn_and_prompts_are_spread(clips):
    assert list(clips) == ["crossing", "occlusion", "cut", "slow"]
    for clip in clips.values():
        bright = clip.frames[0, ..., 0].astype(float)
        assert bright[clip.truth[0]].mean() > bright[~clip.truth[0]].mean() + 30
    assert not clips["cut"].truth[list(HIDDEN)].any()
    assert list(clips["crossing"].prompts(4)) == [0, 10, 20, 30]
    assert not set(clips["cut"].prompts(8)) & set(HIDDEN)


def test_a_perfect_answer_scores_one_and_prompted_frames_do_not_count(clips):
    clip = clips["crossing"]
    found = clip.truth.copy()
    found[0] = False
    assert scores(clip, found, [0]) == (1.0, 1.0, 1.0)


def test_more_prompted_frames_than_memories_lose_no_object_that_moves(clips):
    whole = clips["crossing"]
    clip = replace(whole, frames=whole.frames[:SHORT], truth=whole.truth[:SHORT], known=range(SHORT))
    network = PredictorPool(Settings(threads=1), MODELS).get()
    found = follow(network, clip, 8, ["fifo"])["fifo"]
    assert min(jaccard(mask, truth) for mask, truth in zip(found.masks, clip.truth, strict=True)) > 0.75
    assert len(found.seconds) == SHORT
    one = replace(clip, frames=clip.frames[:3], truth=clip.truth[:3], known=range(3))
    text = report(*measure(network, ["fifo", "pruned"], 1, [one]), "some weights")
    assert "| crossing | 2 |" in text
    assert "| pruned |" in text


def test_frames_without_a_truth_are_not_scored(clips):
    clip = replace(clips["crossing"], known=[0, 1])
    assert scores(clip, np.copy(clip.truth), [0])[2] == 1.0


def test_times_with_seven_memories_come_from_the_frames_that_have_them():
    text = measure_larger(64, ["fifo", "pruned"], 1)
    assert re.search(r"SAM 2.1 tiny at 64 px, .*: fifo 1\.000, pruned \d\.\d{3} \(", text)
