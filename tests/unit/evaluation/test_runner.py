import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lib.errors import EvaluationError, LabelError
from lib.evaluation.cases import Case
from lib.evaluation.datastore import list_cases
from lib.evaluation.runner import RESULTS_FILE, Plan, chosen_objects, evaluate, pipelines_for
from tests.support.studies import write_nifti
from tests.unit.evaluation.conftest import Empty, Perfect, entrant, write_clip, write_study


def plan(folder, pipeline=None):
    return Plan(list_cases(folder), pipeline)


def perfect(folder):
    return Perfect(*(case.open(2) for case in list_cases(folder)))


def test_each_case_is_evaluated_as_suits_it(study, options):
    write_clip(study / "clip")
    outcome = evaluate(plan(study), [entrant(perfect(study))], options)
    kinds = {row.image: row.pipeline for row in outcome.rows}
    assert kinds == {"colour": "image", "ct": "volume", "clip": "video"}
    assert {value for row in outcome.rows for name, value in row.values.items() if name != "hd95"} == {1.0}
    assert {row.label for row in outcome.rows if row.image == "ct"} == {"lesion", "organ"}


def test_a_pipeline_that_is_named_reads_what_it_can(study, options):
    outcome = evaluate(plan(study, "video"), [entrant(perfect(study))], options)
    assert {row.image for row in outcome.rows} == {"ct"}
    assert "picture is nothing for the pipeline video" in outcome.left_out["colour"]
    picture, volume = (case.open(2) for case in list_cases(study))
    assert [pipeline.name for pipeline in pipelines_for(volume, "image")] == ["image"]
    assert [pipeline.name for pipeline in pipelines_for(picture, None)] == ["image"]


def test_a_second_run_computes_nothing_and_finds_the_same(study, options):
    first = perfect(study)
    before = evaluate(plan(study), [entrant(first)], options)
    content = (options.output / RESULTS_FILE).read_bytes()
    second = perfect(study)
    after = evaluate(plan(study), [entrant(second)], options)
    assert len(first.calls) > 0 == len(second.calls)
    assert after == before
    assert (options.output / RESULTS_FILE).read_bytes() == content


class Breaking(Perfect):
    """Ctrl-C after some steps of the network."""

    def __init__(self, left, *scenes):
        super().__init__(*scenes)
        self.left = left

    def segment(self, *arguments, **named):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().segment(*arguments, **named)


def test_an_evaluation_that_was_broken_off_goes_on_and_equals_one_that_was_not(study, options):
    options = replace(options, batch=1)
    whole = evaluate(plan(study), [entrant(perfect(study))], replace(options, output=study / "whole"))
    scenes = [case.open(2) for case in list_cases(study)]
    for steps in (0, 1, 3, 3, 3):
        with pytest.raises(KeyboardInterrupt):
            evaluate(plan(study), [entrant(Breaking(steps, *scenes))], options)
    resumed = perfect(study)
    assert evaluate(plan(study), [entrant(resumed)], options) == whole
    # Six clicks and a volume of two objects: one of them is left.
    assert {index for _, index in resumed.calls} <= set(range(6, 24))
    ours, theirs = (folder / RESULTS_FILE for folder in (options.output, study / "whole"))
    assert sorted(ours.read_text().splitlines()) == sorted(theirs.read_text().splitlines())


def test_other_options_and_other_truths_are_computed_again(study, options):
    evaluate(plan(study), [entrant(perfect(study))], options)
    for changed in (replace(options, seed=1), replace(options, clicks=(1, 2))):
        stub = perfect(study)
        evaluate(plan(study), [entrant(stub)], changed)
        assert stub.calls
    write_nifti(study / "labels" / "final" / "ct.nii.gz", np.ones((96, 80, 24), np.uint8), np.eye(4))
    stub = Empty()
    evaluate(plan(study, "volume"), [entrant(stub)], options)
    assert stub.calls


def test_two_networks_get_the_same_prompts(study, options):
    class Watching(Empty):
        def segment(self, frames, index, prompts, bank=None):
            if prompts is not None:
                self.asked = [*getattr(self, "asked", []), prompts.points.tolist()]
            return super().segment(frames, index, prompts)

    one, other = Watching(), Watching()
    both = [entrant(one, "one"), entrant(other, "other", "1" * 64)]
    outcome = evaluate(plan(study, "image"), both, options)
    assert one.asked == other.asked
    assert [row.weights for row in outcome.rows[:6]] == ["one"] * 3 + ["other"] * 3


def test_the_same_weights_under_two_names_are_run_once(study, options):
    one, other = Empty(), Empty()
    outcome = evaluate(plan(study), [entrant(one, "one"), entrant(other, "other")], options)
    assert len(one.calls) > 0 == len(other.calls)
    assert [row.weights for row in outcome.rows[:6]] == ["one"] * 3 + ["other"] * 3


def test_the_batch_changes_no_row(study, options):
    small = evaluate(plan(study), [entrant(perfect(study))], replace(options, batch=1))
    large = evaluate(plan(study), [entrant(perfect(study))], replace(options, output=study / "out", batch=9))
    key = [row.key for row in large.rows]
    assert sorted(small.rows, key=lambda row: key.index(row.key)) == large.rows


def test_a_label_that_does_not_fit_is_named_and_left_out(study, options, caplog):
    (study / "labels" / "final" / "ct.nii.gz").write_bytes(b"no label")
    with caplog.at_level(logging.WARNING):
        outcome = evaluate(plan(study), [entrant(perfect_picture(study))], options)
    assert {row.image for row in outcome.rows} == {"colour"}
    assert list(outcome.left_out) == ["ct"]
    assert "ct.nii.gz" in outcome.left_out["ct"]
    assert "ct is left out" in caplog.text


def perfect_picture(study):
    return Perfect(next(case.open(2) for case in list_cases(study) if case.id == "colour"))


def test_where_nothing_fits_it_is_an_error_with_the_reasons(study, options):
    def refuse(axis):
        raise LabelError("label.nii.gz: no")

    with pytest.raises(
        EvaluationError, match=r"nothing could be evaluated in .*study: a: label\.nii\.gz: no"
    ):
        evaluate(Plan([Case("a", refuse)], None), [entrant(Empty())], options)
    with pytest.raises(EvaluationError, match="no image is there"):
        evaluate(Plan([], None), [entrant(Empty())], options)


def test_limit_and_objects_take_a_part_that_the_seed_decides(tmp_path, options):
    folder = write_study(tmp_path / "several", volumes=("ct", "ct2", "ct3"), pictures=())
    outcome = evaluate(plan(folder), [entrant(Empty())], replace(options, limit=2, objects=1))
    assert [row.image for row in outcome.rows] == ["ct", "ct2"]
    scene = list_cases(folder)[0].open(2)
    drawn = partial(chosen_objects, scene, "ct")
    assert drawn(replace(options, objects=1)) == drawn(replace(options, objects=1))
    assert {drawn(replace(options, objects=1, seed=seed)) for seed in range(9)} == {(1,), (2,)}
    assert drawn(options) == (1, 2)


def test_instances_get_one_class(study, options):
    outcome = evaluate(plan(study, "image"), [entrant(Empty())], replace(options, limit=1, instances="cell"))
    assert {row.label for row in outcome.rows if row.object} == {"cell"}


def test_one_click_on_small_frames_comes_with_a_note(tmp_path, options):
    folder = write_clip(tmp_path / "clip")
    outcome = evaluate(plan(folder), [entrant(Empty())], options)
    assert outcome.notes == [
        "clip: on frames of 90 x 70 pixels one click says too little (the paper has 6.6 J&F on the 112 "
        "pixels of EchoNet-Dynamic)"
    ]
    assert evaluate(plan(folder), [entrant(Empty())], replace(options, clicks=(3,))).notes == []
