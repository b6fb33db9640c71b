from dataclasses import replace

import numpy as np
import pytest

from lib.evaluation.cases import Scene
from lib.evaluation.datastore import list_cases
from lib.evaluation.prompting import Drawing, Prompt
from lib.evaluation.protocol import Rules, Trial
from lib.evaluation.volume import VolumePipeline, prompted_slice
from tests.unit.evaluation.conftest import Empty, Perfect

PIPELINE = VolumePipeline()


@pytest.fixture
def scene(study):
    return next(case.open(2) for case in list_cases(study) if case.id == "ct")


def judged(predictor, scene, options, rules=None):
    (trial,) = PIPELINE.trials(scene, scene.objects, options)
    return PIPELINE.run(predictor, scene, trial, Drawing(0, "a"), options, rules or Rules())


def test_who_knows_the_truth_gets_all_points_and_no_distance(scene, options):
    for judgement in judged(Perfect(scene), scene, options):
        assert judgement.values == {"dice": 1.0, "nsd": 1.0, "hd95": 0.0}


def test_who_draws_nothing_gets_none_at_an_infinite_distance(scene, options):
    for judgement in judged(Empty(), scene, options):
        assert judgement.values == {"dice": 0.0, "nsd": 0.0, "hd95": np.inf}


def test_the_box_is_on_the_middle_slice_and_the_way_is_backward_then_forward(scene, options):
    predictor = Perfect(scene)
    trial = Trial("volume", Prompt("box"), (1,))
    (judgement,) = PIPELINE.run(predictor, scene, trial, Drawing(0, "a"), options, Rules())
    # The lesion is on the slices 4 to 14; on each side the way ends after slices without it.
    visited = [index for _, index in predictor.calls]
    assert visited[:7] == [9, 8, 7, 6, 5, 4, 3]
    assert visited[visited.index(10) :][:6] == [10, 11, 12, 13, 14, 15]
    assert judgement.prompts[9].box.tolist() == [60, 16, 85, 35]
    assert judgement.shown == (6, 9, 12)


def test_distances_are_those_of_the_voxels(scene, options):
    class Late(Perfect):
        """Loses the object on the last two slices, of 3 mm each."""

        def track(self, frames, index, bank, reverse, prompts=None):
            result = super().track(frames, index, bank, reverse)
            return replace(result, mask=result.mask & (index < 13))

    lesion, organ = judged(Late(scene), scene, replace(options, batch=2))
    assert 0.8 < lesion.values["dice"] < 1
    assert 0 < lesion.values["hd95"] <= 6.0
    exact = judged(Late(scene), scene, options, Rules(tolerance_mm={"lesion": 0.5}))[0].values["nsd"]
    assert exact < judged(Late(scene), scene, options, Rules(tolerance_mm={"lesion": 6.0}))[0].values["nsd"]
    assert organ.values["dice"] < lesion.values["dice"]


def test_a_class_may_be_rated_on_the_slices_with_a_truth_alone(scene, options):
    class Long(Perfect):
        """Goes on beyond the object with its last slice, until the propagation ends it."""

        def track(self, frames, index, bank, reverse, prompts=None):
            result = super().track(frames, index, bank, reverse)
            last = self.scenes[frames.digest].visible(bank.value)[0 if reverse else -1]
            beyond = self.scenes[frames.digest].mask(bank.value, last)
            return result if result.mask.any() else replace(result, mask=beyond)

    everywhere = judged(Long(scene), scene, options)[0].values
    there = judged(Long(scene), scene, options, Rules(labelled_slices=frozenset({"lesion"})))[0].values
    assert everywhere["dice"] < 0.99
    assert everywhere["hd95"] > 0
    assert there == {"dice": 1.0, "nsd": 1.0, "hd95": 0.0}


def test_the_slice_is_the_middle_or_the_largest():
    frames = [np.zeros((6, 6), np.uint8) for _ in range(10)]
    for index, size in ((1, 2), (2, 5), (7, 3), (8, 2)):
        frames[index][:size, :size] = 1
    scene = Scene("volume", None, "", tuple(range(10)), frames, {1: "a"}, (1.0, 1.0, 1.0))
    # The middle of 1 to 8 is 4, where the object has a gap.
    assert prompted_slice(scene, 1, "middle") == 2
    assert prompted_slice(scene, 1, "largest") == 2
    frames[7][:, :] = 1
    assert prompted_slice(scene, 1, "largest") == 7


def test_objects_are_followed_in_batches(scene, options):
    assert [trial.objects for trial in PIPELINE.trials(scene, (1, 2), replace(options, batch=1))] == [
        (1,),
        (2,),
    ]
    assert [trial.objects for trial in PIPELINE.trials(scene, (1, 2), options)] == [(1, 2)]
