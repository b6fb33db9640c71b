from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lib.evaluation.datastore import list_cases
from lib.evaluation.image import ImagePipeline, spread, without_border
from lib.evaluation.prompting import Drawing
from lib.evaluation.protocol import ALL_OBJECTS, Rules
from tests.unit.evaluation.conftest import Empty, Perfect

PIPELINE = ImagePipeline()


@pytest.fixture
def scene(study):
    return next(case.open(2) for case in list_cases(study) if case.id == "colour")


def judged(predictor, scene, options, rules=None):
    run = partial(PIPELINE.run, predictor, scene)
    return [
        judgement
        for trial in PIPELINE.trials(scene, scene.objects, options)
        for judgement in run(trial, Drawing(0, "a"), options, rules or Rules())
    ]


def test_who_knows_the_truth_gets_all_points(scene, options):
    for judgement in judged(Perfect(scene), scene, replace(options, box=True)):
        assert set(judgement.values.values()) == {1.0}


def test_who_draws_nothing_gets_none(scene, options):
    for judgement in judged(Empty(), scene, options):
        assert set(judgement.values.values()) == {0.0}


def test_each_object_gets_each_prompt_and_all_together_have_f1(scene, options):
    trials = PIPELINE.trials(scene, scene.objects, replace(options, box=True))
    assert [trial.prompt.name for trial in trials] == ["1 click", "3 clicks", "5 clicks", "box"]
    assert PIPELINE.expects(trials[0], Rules()) == (1, 2, ALL_OBJECTS)
    assert PIPELINE.expects(trials[0], Rules(metrics=("dice",))) == (1, 2)
    found = judged(Perfect(scene), scene, options)
    assert [set(judgement.values) for judgement in found[:3]] == [{"dice", "nsd"}, {"dice", "nsd"}, {"f1"}]


def test_numbers_are_those_of_their_definitions(scene, options):
    class Half(Perfect):
        """Draws one object right and of the other the left half."""

        def segment(self, frames, index, prompts, bank=None):
            result = super().segment(frames, index, prompts)
            mask = result.mask.copy()
            if mask[26, 88]:
                mask[:, 88:] = False
            return replace(result, mask=mask)

    one, other, together = judged(Half(scene), scene, replace(options, clicks=(1,)))
    whole, left = scene.mask(1, 0).sum(), scene.mask(1, 0)[:, :88].sum()
    assert one.values["dice"] == pytest.approx(2 * left / (whole + left))
    assert other.values["dice"] == 1.0
    # The half shares less than half of the union: of two objects one is found, and of two drawn one is wrong.
    assert left / whole < 0.5
    assert together.values["f1"] == 0.5


def test_a_wide_tolerance_forgives_what_a_narrow_one_does_not(scene, options):
    class Grown(Perfect):
        def segment(self, frames, index, prompts, bank=None):
            result = super().segment(frames, index, prompts)
            return replace(result, mask=np.roll(result.mask, 3, axis=1))

    nsd = {
        tolerance: judged(Grown(scene), scene, options, Rules(default_tolerance_mm=tolerance))[0].values[
            "nsd"
        ]
        for tolerance in (1.0, 3.5)
    }
    assert nsd[1.0] < 0.8 < nsd[3.5] == 1.0


def test_slices_of_a_volume_are_spread_over_the_object(study, options):
    volume = next(case.open(2) for case in list_cases(study) if case.id == "ct")
    trials = PIPELINE.trials(volume, (1,), replace(options, clicks=(1,), slices=3))
    # The lesion is on the slices 4 to 14.
    assert [trial.frame for trial in trials] == [5, 9, 13]
    assert len(PIPELINE.trials(volume, (1,), replace(options, clicks=(1,), slices=0))) == 11


def test_spread_takes_the_middle_of_each_part():
    assert spread(range(10), 2) == (2, 7)
    assert spread((4, 5), 8) == (4, 5)


def test_instances_in_the_border_are_left_out():
    labels = np.zeros((20, 30), np.uint16)
    labels[0:5, 3:8], labels[8:12, 10:14], labels[10:15, 28:30], labels[2:6, 20:24] = 1, 2, 3, 4
    assert np.unique(without_border(labels, 2)).tolist() == [0, 2, 4]
    assert np.unique(without_border(labels, 3)).tolist() == [0, 2]
    assert (without_border(labels, 0) == labels).all()
