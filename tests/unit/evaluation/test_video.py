from dataclasses import replace

import pytest

from lib.evaluation.datastore import list_cases
from lib.evaluation.prompting import Drawing, Prompt
from lib.evaluation.protocol import Rules, Trial
from lib.evaluation.video import VideoPipeline
from tests.unit.evaluation.conftest import Empty, Perfect, write_clip

PIPELINE = VideoPipeline()
MASK = Trial("video", Prompt("mask"), (1,))


def clip(folder, annotated=range(6)):
    (case,) = list_cases(write_clip(folder / "clip", annotated))
    return case.open(2)


def judge(predictor, scene, trial, options):
    (judgement,) = PIPELINE.run(predictor, scene, trial, Drawing(0, "a"), options, Rules())
    return judgement


def test_a_mask_as_the_prompt_is_right_on_its_frame_whatever_the_network(tmp_path, options):
    from lib.evaluation.models import open_entrants

    (mini,) = open_entrants(options)
    values = judge(mini.predictor, clip(tmp_path, annotated=[2]), MASK, options).values
    assert values == {"j": 1.0, "f": 1.0, "jf": 1.0}


def test_who_knows_the_truth_gets_all_points(tmp_path, options):
    scene = clip(tmp_path)
    for trial in PIPELINE.trials(scene, scene.objects, options):
        assert set(judge(Perfect(scene), scene, trial, options).values.values()) == {1.0}


def test_who_draws_nothing_gets_none(tmp_path, options):
    trial = Trial("video", Prompt("click", 3), (1,))
    values = judge(Empty(), clip(tmp_path), trial, options).values
    assert values == {"j": 0.0, "f": 0.0, "jf": 0.0, "jf_tracked": 0.0}


def test_the_mean_is_over_the_frames_with_a_truth_and_the_tracked_ones_apart(tmp_path, options):
    class Lost(Perfect):
        """Right where it is prompted, and nowhere else."""

        def track(self, frames, index, bank, reverse, prompts=None):
            return Empty().track(frames, index, bank, reverse)

    scene = clip(tmp_path, annotated=(0, 1, 3, 5))
    values = judge(Lost(scene), scene, Trial("video", Prompt("click", 1, 2), (1,)), options).values
    assert values["jf"] == 0.5
    assert values["jf_tracked"] == 0.0


def test_prompts_are_on_the_first_frames_with_the_object_and_the_way_is_forward(tmp_path, options):
    scene = clip(tmp_path, annotated=(1, 3, 4))
    predictor = Empty()
    judgement = judge(predictor, scene, Trial("video", Prompt("click", 5, 2), (1,)), options)
    assert sorted(judgement.prompts) == [1, 3]
    assert all(len(prompts.points) == 5 for prompts in judgement.prompts.values())
    # Frame 0 lies before, frame 5 after the last truth.
    assert [index for _, index in predictor.calls] == [1, 3, 2, 4]


def test_the_trials_are_those_of_the_paper(tmp_path, options):
    scene = clip(tmp_path)
    asked = [(trial.prompt.name, trial.prompt.frames) for trial in PIPELINE.trials(scene, (1,), options)]
    # The object is on six frames: there is no trial with eight.
    assert asked == [
        (name, frames) for name in ("1 click", "3 clicks", "5 clicks") for frames in (1, 2, 4, 6)
    ] + [("mask", 1)]


def test_objects_that_begin_together_are_followed_together(study, options):
    volume = next(case.open(2) for case in list_cases(study) if case.id == "ct")
    options = replace(options, clicks=(1,), frames=(1,))
    # The lesion begins on slice 4 and the organ on slice 8.
    assert [trial.objects for trial in PIPELINE.trials(volume, (1, 2), options)] == [(1,), (1,), (2,), (2,)]
    for trial in PIPELINE.trials(volume, (1, 2), options):
        assert judge(Perfect(volume), volume, trial, options).values["jf"] == pytest.approx(1.0)
