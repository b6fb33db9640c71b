"""The three pipelines with stand-ins for a network that know everything or nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lib.evaluation.cases import LabelledSequence, list_cases
from lib.evaluation.protocol import (
    ALL_OBJECTS,
    CaseContext,
    ImagePipeline,
    MetricRules,
    Prompt,
    PromptTrial,
    VideoPipeline,
    VolumePipeline,
    batches,
    prompted_slice,
    without_border,
)
from tests.support.phantoms import ellipsoid
from tests.unit.evaluation.conftest import Empty, Perfect, changed, context, write_clip

MASK = ellipsoid((50, 80), (20, 60), (9, 14))


def drawn(kind="click", clicks=3, seed=0, case="a", value=1, frame=0, jitter=0.0):
    sequence = SimpleNamespace(mask=lambda value, frame: MASK)
    options = SimpleNamespace(seed=seed, jitter=jitter)
    return CaseContext(case, sequence, options, MetricRules()).draw(Prompt(kind, clicks), value, frame)


def test_prompts_are_drawn_from_the_truth():
    for count in (1, 3, 5):
        prompts = drawn(clicks=count)
        x, y = prompts.points.astype(int).T
        assert MASK[y, x].all()
        assert prompts.labels.tolist() == [1] * count
        assert len({tuple(point) for point in prompts.points.tolist()}) == count

    # The same question gets the same clicks.
    assert (drawn().points == drawn().points).all()

    # Another question gets other clicks.
    for other in ({"seed": 1}, {"case": "b"}, {"value": 2}, {"frame": 1}, {"clicks": 5}):
        assert (drawn().points != drawn(**other).points[:3]).any()

    # A box is tight or drawn as by a person.
    assert drawn("box", 0).box.tolist() == [46, 11, 75, 30]
    loose = drawn("box", 0, jitter=0.1).box
    assert 0 < np.abs(loose - drawn("box", 0).box).max() <= 20
    assert (loose == drawn("box", 0, jitter=0.1).box).all()

    # A mask is the truth.
    assert (drawn("mask", 0).mask == MASK).all()

    # Prompts have names for tables.
    names = [Prompt("click", 1).name, Prompt("click", 3).name, Prompt("box").name, Prompt("mask").name]
    assert names == ["1 click", "3 clicks", "box", "mask"]


def test_rules_name_tolerances_and_metrics():
    rules = MetricRules(tolerance_mm={"liver": 5.0}, default_tolerance_mm=2.0)
    assert (rules.tolerance("liver"), rules.tolerance("aorta")) == (5.0, 2.0)

    # All metrics are wanted unless some are named.
    assert MetricRules().wants("hd95")
    assert not MetricRules(metrics=("dice",)).wants("hd95")


def test_batches_hold_every_object_once():
    assert list(batches([1, 2, 3, 4, 5], 2)) == [(1, 2), (3, 4), (5,)]
    assert list(batches([], 2)) == []


IMAGE, VOLUME, VIDEO = ImagePipeline(), VolumePipeline(), VideoPipeline()
MASK_PROMPT = PromptTrial("video", Prompt("mask"), (1,))


@pytest.fixture
def picture(study):
    return next(case.open(2) for case in list_cases(study) if case.id == "colour")


def image_results(predictor, sequence, options, rules=None):
    case = context(sequence, options, rules)
    trials = IMAGE.trials(case, sequence.objects)
    return [result for trial in trials for result in IMAGE.run(predictor, case, trial)]


def test_image_who_knows_the_truth_gets_all_points(picture, options):
    for result in image_results(Perfect(picture), picture, changed(options, box=True)):
        assert set(result.values.values()) == {1.0}


def test_image_who_draws_nothing_gets_none(picture, options):
    for result in image_results(Empty(), picture, options):
        assert set(result.values.values()) == {0.0}


def test_each_object_gets_each_prompt_and_all_together_have_f1(picture, options):
    trials = IMAGE.trials(context(picture, changed(options, box=True)), picture.objects)
    assert [trial.prompt.name for trial in trials] == ["1 click", "3 clicks", "5 clicks", "box"]
    assert IMAGE.expects(trials[0], MetricRules()) == (1, 2, ALL_OBJECTS)
    assert IMAGE.expects(trials[0], MetricRules(metrics=("dice",))) == (1, 2)
    found = image_results(Perfect(picture), picture, options)
    assert [set(result.values) for result in found[:3]] == [{"dice", "nsd"}, {"dice", "nsd"}, {"f1"}]


def test_numbers_are_those_of_their_definitions(picture, options):
    class Half(Perfect):
        """Draws one object right and of the other the left half."""

        def segment(self, frames, index, prompts, bank=None):
            result = super().segment(frames, index, prompts)
            mask = result.mask.copy()
            if mask[26, 88]:
                mask[:, 88:] = False
            return replace(result, mask=mask)

    one, other, together = image_results(Half(picture), picture, changed(options, clicks=(1,)))
    whole, left = picture.mask(1, 0).sum(), picture.mask(1, 0)[:, :88].sum()
    assert one.values["dice"] == pytest.approx(2 * left / (whole + left))
    assert other.values["dice"] == 1.0
    # The half shares less than half of the union: of two objects one is found, and of two drawn one is wrong.
    assert left / whole < 0.5
    assert together.values["f1"] == 0.5


def test_a_wide_tolerance_forgives_what_a_narrow_one_does_not(picture, options):
    class Grown(Perfect):
        def segment(self, frames, index, prompts, bank=None):
            result = super().segment(frames, index, prompts)
            return replace(result, mask=np.roll(result.mask, 3, axis=1))

    nsd = {
        tolerance: image_results(
            Grown(picture), picture, options, MetricRules(default_tolerance_mm=tolerance)
        )[0].values["nsd"]
        for tolerance in (1.0, 3.5)
    }
    assert nsd[1.0] < 0.8 < nsd[3.5] == 1.0


def test_slices_of_a_volume_are_spread_over_the_object(study, options):
    volume = next(case.open(2) for case in list_cases(study) if case.id == "ct")
    trials = IMAGE.trials(context(volume, changed(options, clicks=(1,), slices=3)), (1,))
    # The lesion is on the slices 4 to 14.
    assert [trial.frame for trial in trials] == [5, 9, 13]
    assert len(IMAGE.trials(context(volume, changed(options, clicks=(1,), slices=0)), (1,))) == 11


def test_instances_in_the_border_are_left_out():
    labels = np.zeros((20, 30), np.uint16)
    labels[0:5, 3:8], labels[8:12, 10:14], labels[10:15, 28:30], labels[2:6, 20:24] = 1, 2, 3, 4
    assert np.unique(without_border(labels, 2)).tolist() == [0, 2, 4]
    assert np.unique(without_border(labels, 3)).tolist() == [0, 2]
    assert (without_border(labels, 0) == labels).all()


@pytest.fixture
def volume(study):
    return next(case.open(2) for case in list_cases(study) if case.id == "ct")


def volume_results(predictor, sequence, options, rules=None):
    case = context(sequence, options, rules)
    (trial,) = VOLUME.trials(case, sequence.objects)
    return VOLUME.run(predictor, case, trial)


def test_who_knows_the_truth_gets_all_points_and_no_distance(volume, options):
    for result in volume_results(Perfect(volume), volume, options):
        assert result.values == {"dice": 1.0, "nsd": 1.0, "hd95": 0.0}


def test_who_draws_nothing_gets_none_at_an_infinite_distance(volume, options):
    for result in volume_results(Empty(), volume, options):
        assert result.values == {"dice": 0.0, "nsd": 0.0, "hd95": np.inf}


def test_the_box_is_on_the_middle_slice_and_the_way_is_backward_then_forward(volume, options):
    predictor = Perfect(volume)
    trial = PromptTrial("volume", Prompt("box"), (1,))
    (result,) = VOLUME.run(predictor, context(volume, options), trial)
    # The lesion is on the slices 4 to 14; on each side the way ends after slices without it.
    visited = [index for _, index in predictor.calls]
    assert visited[:7] == [9, 8, 7, 6, 5, 4, 3]
    assert visited[visited.index(10) :][:6] == [10, 11, 12, 13, 14, 15]
    assert result.prompts[9].box.tolist() == [60, 16, 85, 35]
    assert result.shown == (6, 9, 12)


def test_distances_are_those_of_the_voxels(volume, options):
    class Late(Perfect):
        """Loses the object on the last two slices, of 3 mm each."""

        def track(self, frames, index, bank, reverse, prompts=None):
            result = super().track(frames, index, bank, reverse)
            return replace(result, mask=result.mask & (index < 13))

    lesion, organ = volume_results(Late(volume), volume, changed(options, batch=2))
    assert 0.8 < lesion.values["dice"] < 1
    assert 0 < lesion.values["hd95"] <= 6.0
    exact = volume_results(Late(volume), volume, options, MetricRules(tolerance_mm={"lesion": 0.5}))[
        0
    ].values["nsd"]
    assert (
        exact
        < volume_results(Late(volume), volume, options, MetricRules(tolerance_mm={"lesion": 6.0}))[0].values[
            "nsd"
        ]
    )
    assert organ.values["dice"] < lesion.values["dice"]


def test_a_class_may_be_rated_on_the_slices_with_a_truth_alone(volume, options):
    class Long(Perfect):
        """Goes on beyond the object with its last slice, until the propagation ends it."""

        def track(self, frames, index, bank, reverse, prompts=None):
            result = super().track(frames, index, bank, reverse)
            last = self.sequences[frames.digest].visible(bank.value)[0 if reverse else -1]
            beyond = self.sequences[frames.digest].mask(bank.value, last)
            return result if result.mask.any() else replace(result, mask=beyond)

    everywhere = volume_results(Long(volume), volume, options)[0].values
    there = volume_results(Long(volume), volume, options, MetricRules(labelled_slices=("lesion",)))[0].values
    assert everywhere["dice"] < 0.99
    assert everywhere["hd95"] > 0
    assert there == {"dice": 1.0, "nsd": 1.0, "hd95": 0.0}


def test_the_slice_is_the_middle_or_the_largest():
    frames = [np.zeros((6, 6), np.uint8) for _ in range(10)]
    for index, size in ((1, 2), (2, 5), (7, 3), (8, 2)):
        frames[index][:size, :size] = 1
    sequence = LabelledSequence("volume", None, "", tuple(range(10)), frames, {1: "a"}, (1.0, 1.0, 1.0))
    # The middle of 1 to 8 is 4, where the object has a gap.
    assert prompted_slice(sequence, 1, "middle") == 2
    assert prompted_slice(sequence, 1, "largest") == 2
    frames[7][:, :] = 1
    assert prompted_slice(sequence, 1, "largest") == 7


def test_objects_are_followed_in_batches(volume, options):
    assert [trial.objects for trial in VOLUME.trials(context(volume, changed(options, batch=1)), (1, 2))] == [
        (1,),
        (2,),
    ]
    assert [trial.objects for trial in VOLUME.trials(context(volume, options), (1, 2))] == [(1, 2)]


def clip(folder, annotated=range(6)):
    (case,) = list_cases(write_clip(folder / "clip", annotated))
    return case.open(2)


def video_result(predictor, sequence, trial, options):
    (result,) = VIDEO.run(predictor, context(sequence, options), trial)
    return result


def test_a_mask_as_the_prompt_is_right_on_its_frame_whatever_the_network(tmp_path, options):
    from lib.evaluation.runner import open_models

    (mini,) = open_models(options)
    values = video_result(mini.predictor, clip(tmp_path, annotated=[2]), MASK_PROMPT, options).values
    assert values == {"j": 1.0, "f": 1.0, "jf": 1.0}


def test_video_who_knows_the_truth_gets_all_points(tmp_path, options):
    sequence = clip(tmp_path)
    for trial in VIDEO.trials(context(sequence, options), sequence.objects):
        assert set(video_result(Perfect(sequence), sequence, trial, options).values.values()) == {1.0}


def test_video_who_draws_nothing_gets_none(tmp_path, options):
    trial = PromptTrial("video", Prompt("click", 3), (1,))
    values = video_result(Empty(), clip(tmp_path), trial, options).values
    assert values == {"j": 0.0, "f": 0.0, "jf": 0.0, "jf_tracked": 0.0}


def test_the_mean_is_over_the_frames_with_a_truth_and_the_tracked_ones_apart(tmp_path, options):
    class Lost(Perfect):
        """Right where it is prompted, and nowhere else."""

        def track(self, frames, index, bank, reverse, prompts=None):
            return Empty().track(frames, index, bank, reverse)

    sequence = clip(tmp_path, annotated=(0, 1, 3, 5))
    values = video_result(
        Lost(sequence), sequence, PromptTrial("video", Prompt("click", 1, 2), (1,)), options
    ).values
    assert values["jf"] == 0.5
    assert values["jf_tracked"] == 0.0


def test_prompts_are_on_the_first_frames_with_the_object_and_the_way_is_forward(tmp_path, options):
    sequence = clip(tmp_path, annotated=(1, 3, 4))
    predictor = Empty()
    result = video_result(predictor, sequence, PromptTrial("video", Prompt("click", 5, 2), (1,)), options)
    assert sorted(result.prompts) == [1, 3]
    assert all(len(prompts.points) == 5 for prompts in result.prompts.values())
    # Frame 0 lies before, frame 5 after the last truth.
    assert [index for _, index in predictor.calls] == [1, 3, 2, 4]


def test_the_trials_are_those_of_the_paper(tmp_path, options):
    sequence = clip(tmp_path)
    asked = [
        (trial.prompt.name, trial.prompt.frames) for trial in VIDEO.trials(context(sequence, options), (1,))
    ]
    # The object is on six frames: there is no trial with eight.
    assert asked == [
        (name, frames) for name in ("1 click", "3 clicks", "5 clicks") for frames in (1, 2, 4, 6)
    ] + [("mask", 1)]


def test_objects_that_begin_together_are_followed_together(study, options):
    volume = next(case.open(2) for case in list_cases(study) if case.id == "ct")
    options = changed(options, clicks=(1,), frames=(1,))
    # The lesion begins on slice 4 and the organ on slice 8.
    assert [trial.objects for trial in VIDEO.trials(context(volume, options), (1, 2))] == [
        (1,),
        (1,),
        (2,),
        (2,),
    ]
    for trial in VIDEO.trials(context(volume, options), (1, 2)):
        assert video_result(Perfect(volume), volume, trial, options).values["jf"] == pytest.approx(1.0)
