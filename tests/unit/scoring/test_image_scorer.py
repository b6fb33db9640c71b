from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from lib.labels.labelled_slices import image_frames
from lib.metrics.calibration import Calibration
from lib.prompts.types import FramePrompts
from lib.scoring.image_scorer import ScorePlan, score_image, spread
from lib.scoring.prompt_sources import GridSource, Suggestion
from lib.scoring.signals import combine
from tests.support.phantoms import rimmed
from tests.unit.scoring.conftest import open_phantom

PLAN = ScorePlan(slices=3, jitters=3)


@dataclass
class Scripted:
    """A source that says what it is told to, and notes where it was asked."""

    suggestions: list[Suggestion]
    asked: list[int] = field(default_factory=list)
    name: str = "scripted"

    def suggest(self, predictor, frames, index):
        self.asked.append(index)
        return self.suggestions


def box(*corners: float) -> FramePrompts:
    return FramePrompts(np.zeros((0, 2)), np.zeros(0), box=list(corners))


BRIGHT = Suggestion("bright", box(27, 6, 53, 26), 0.9)
ABSENT = Suggestion("dark", None, 0.25)


def test_slices_are_spread_evenly_from_the_middle_outwards():
    assert spread(1, 6) == [0]
    assert spread(2, 6) == [0, 1]
    assert spread(9, 1) == [4]
    assert spread(9, 3) == [4, 1, 7]  # the middles of 0-2, 3-5 and 6-8
    assert spread(100, 4) == [37, 62, 12, 87]  # 12.5, 37.5, 62.5, 87.5
    assert spread(3, 6) == [1, 0, 2]


def test_the_same_image_gets_the_same_score(predictor, body):
    _image, frames, _ = body
    first, again = (score_image(predictor, frames, [GridSource()], PLAN) for _ in range(2))
    assert first.parts == again.parts
    assert (first.score, first.slice_index, first.slices) == (again.score, again.slice_index, again.slices)
    np.testing.assert_array_equal(first.embedding, again.embedding)


def test_a_score_says_what_it_was_made_of(predictor, body):
    image, frames, _ = body
    source = Scripted([BRIGHT, ABSENT])
    found = score_image(predictor, frames, [source], PLAN)
    assert source.asked == [4, 1, 7]
    assert list(found.parts) == ["entropy", "jitter", "presence", "predicted_iou", "stability"]
    # Doubts of 0.9 and of 0.25: 0.2 and 0.5.
    assert found.parts["presence"] == pytest.approx(0.35)
    assert found.score == combine(found.parts)
    assert found.labels == ("bright",)
    assert set(found.slices) == {1, 4, 7}
    assert found.slices[found.slice_index] == max(found.slices.values())
    assert (found.weights, found.digest) == ("biosam2_mini", image.digest)
    assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-5)
    assert found.seconds > 0


def test_where_nothing_is_found_the_next_source_is_asked(predictor, body):
    _image, frames, _ = body
    nothing, second, third = Scripted([ABSENT]), Scripted([BRIGHT]), Scripted([BRIGHT])
    found = score_image(predictor, frames, [nothing, second, third], PLAN)
    assert second.asked == [4, 1, 7]
    assert third.asked == []
    assert found.labels == ("bright",)


def test_where_nobody_finds_anything_the_score_is_undecided(predictor, body):
    _image, frames, _ = body
    found = score_image(predictor, frames, [Scripted([])], PLAN)
    assert (found.score, found.parts, found.labels, found.slices) == (0.5, {}, (), {})
    assert found.slice_index == 4
    absent = score_image(predictor, frames, [Scripted([ABSENT])], PLAN)
    assert absent.score == pytest.approx(0.95 * 0.5 + 0.05 * 0.5)


def test_a_class_that_is_probably_not_there_was_not_found(predictor, body):
    _image, frames, _ = body
    doubtful = Suggestion("bright", BRIGHT.prompts, 0.4)
    assert score_image(predictor, frames, [Scripted([doubtful])], PLAN).labels == ()


def test_the_time_is_bounded_and_one_slice_is_always_looked_at(predictor, body):
    _image, frames, _ = body
    source = Scripted([BRIGHT])
    found = score_image(predictor, frames, [source], replace(PLAN, seconds=0.0))
    assert source.asked == [4]
    assert set(found.slices) == {4}


def test_it_gives_way_between_its_steps(predictor, body):
    _image, frames, _ = body
    calls = []
    score_image(predictor, frames, [Scripted([BRIGHT])], PLAN, give_way=lambda: calls.append(1))
    assert len(calls) >= 3 * 3


def test_a_calibration_changes_the_score_and_not_its_parts(predictor, body):
    _image, frames, _ = body
    hard = Calibration((0.0, 1.0), (0.0, 0.0), 20)
    before, after = (
        score_image(predictor, frames, [Scripted([BRIGHT])], PLAN, *more) for more in ((), (hard,))
    )
    assert before.parts == after.parts
    assert after.score - before.score == pytest.approx(0.25 * (1 - before.parts["predicted_iou"]))
    assert (before.calibration, after.calibration) == ("", hard.name)


def test_an_image_with_faint_bodies_is_less_sure_than_one_with_plain_ones(predictor):
    scores = []
    for contrast in (1.0, 0.12):
        phantom = rimmed(1)
        noise = np.random.default_rng(9).normal(0, 6, phantom.image.shape)
        faint = 100 + contrast * (phantom.image - 100) + noise
        image = open_phantom(replace(phantom, image=faint.astype(np.float32)))
        found = score_image(predictor, image_frames(image), [GridSource()], PLAN)
        scores.append(found.score)
    assert scores[0] < scores[1]
