from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lib.engine.download import MODEL_DIR
from lib.errors import CheckpointError, DeviceError, EvaluationError, LabelError
from lib.evaluation.cases import EvaluationCase, list_cases
from lib.evaluation.protocol import MetricRules
from lib.evaluation.runner import (
    RESULTS_FILE,
    EvaluationPlan,
    chosen_objects,
    evaluate,
    fingerprint,
    open_models,
    pipelines_for,
)
from tests.support.studies import write_nifti
from tests.unit.evaluation.conftest import Empty, Perfect, changed, stub_model, write_clip, write_study


def test_weights_are_opened_by_name_and_by_path(options, tmp_path):
    copy = tmp_path / "copy.pt"
    shutil.copy(MODEL_DIR / "biosam2_mini.pt", copy)
    found = open_models(changed(options, weights=("biosam2_mini", str(copy))))
    assert [item.name for item in found] == ["biosam2_mini", "copy"]
    assert found[0].sha256 == found[1].sha256
    assert found[0].describe()["image_size"] == 256


def test_the_image_size_is_taken(options):
    (found,) = open_models(changed(options, image_size=128))
    assert found.describe()["image_size"] == 128


def test_two_of_one_name_are_refused(options, tmp_path):
    copy = tmp_path / "biosam2_mini.pt"
    shutil.copy(MODEL_DIR / "biosam2_mini.pt", copy)
    with pytest.raises(
        EvaluationError, match=r"Two of --weights have the same name in tables \(biosam2_mini\)"
    ):
        open_models(changed(options, weights=("biosam2_mini", str(copy))))


def test_weights_that_are_not_there_are_named(options):
    with pytest.raises(CheckpointError, match=r"nothing: there is no file .*nothing\.pt"):
        open_models(changed(options, weights=("nothing.pt",)))


def test_a_device_that_is_not_there_is_named(options):
    with pytest.raises(DeviceError, match="Unknown device 'cuda:77'"):
        open_models(changed(options, device="cuda:77"))


def test_whatever_changes_a_value_changes_the_fingerprint(options):
    stub = stub_model(Perfect())
    before = fingerprint(stub, options, MetricRules())
    assert before == fingerprint(stub, changed(options, limit=3, clicks=(1,), batch=1), MetricRules())
    others = {
        fingerprint(replace(stub, sha256="1" * 64), options, MetricRules()),
        fingerprint(stub, changed(options, seed=1), MetricRules()),
        fingerprint(stub, changed(options, jitter=0.1), MetricRules()),
        fingerprint(stub, options, MetricRules(default_tolerance_mm=1.0)),
        fingerprint(stub, options, MetricRules(labelled_slices=("aorta",))),
    }
    assert len(others) == 5
    assert before not in others


def plan(folder, pipeline=None):
    return EvaluationPlan(list_cases(folder), pipeline)


def perfect(folder):
    return Perfect(*(case.open(2) for case in list_cases(folder)))


def test_each_case_is_evaluated_as_suits_it(study, options):
    write_clip(study / "clip")
    outcome = evaluate(plan(study), [stub_model(perfect(study))], options)
    kinds = {row.image: row.pipeline for row in outcome.rows}
    assert kinds == {"colour": "image", "ct": "volume", "clip": "video"}
    assert {value for row in outcome.rows for name, value in row.values.items() if name != "hd95"} == {1.0}
    assert {row.label for row in outcome.rows if row.image == "ct"} == {"lesion", "organ"}


def test_a_pipeline_that_is_named_reads_what_it_can(study, options):
    outcome = evaluate(plan(study, "video"), [stub_model(perfect(study))], options)
    assert {row.image for row in outcome.rows} == {"ct"}
    assert "The pipeline video does not support a picture" in outcome.left_out["colour"]
    picture, volume = (case.open(2) for case in list_cases(study))
    assert [pipeline.name for pipeline in pipelines_for(volume, "image")] == ["image"]
    assert [pipeline.name for pipeline in pipelines_for(picture, None)] == ["image"]


def test_a_second_run_computes_nothing_and_finds_the_same(study, options):
    first = perfect(study)
    before = evaluate(plan(study), [stub_model(first)], options)
    content = (options.output / RESULTS_FILE).read_bytes()
    second = perfect(study)
    after = evaluate(plan(study), [stub_model(second)], options)
    assert len(first.calls) > 0 == len(second.calls)
    assert after == before
    assert (options.output / RESULTS_FILE).read_bytes() == content


class Breaking(Perfect):
    """Ctrl-C after some steps of the network."""

    def __init__(self, left, *sequences):
        super().__init__(*sequences)
        self.left = left

    def segment(self, *arguments, **named):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().segment(*arguments, **named)


def test_an_evaluation_that_was_broken_off_goes_on_and_equals_one_that_was_not(study, options):
    options = changed(options, batch=1)
    whole = evaluate(plan(study), [stub_model(perfect(study))], changed(options, output=study / "whole"))
    sequences = [case.open(2) for case in list_cases(study)]
    for steps in (0, 1, 3, 3, 3):
        with pytest.raises(KeyboardInterrupt):
            evaluate(plan(study), [stub_model(Breaking(steps, *sequences))], options)
    resumed = perfect(study)
    assert evaluate(plan(study), [stub_model(resumed)], options) == whole
    # Six clicks and a volume of two objects: one of them is left.
    assert {index for _, index in resumed.calls} <= set(range(6, 24))
    ours, theirs = (folder / RESULTS_FILE for folder in (options.output, study / "whole"))
    assert sorted(ours.read_text().splitlines()) == sorted(theirs.read_text().splitlines())


def test_other_options_and_other_truths_are_computed_again(study, options):
    evaluate(plan(study), [stub_model(perfect(study))], options)
    for other in (changed(options, seed=1), changed(options, clicks=(1, 2))):
        stub = perfect(study)
        evaluate(plan(study), [stub_model(stub)], other)
        assert stub.calls
    write_nifti(study / "labels" / "final" / "ct.nii.gz", np.ones((96, 80, 24), np.uint8), np.eye(4))
    stub = Empty()
    evaluate(plan(study, "volume"), [stub_model(stub)], options)
    assert stub.calls


def test_two_networks_get_the_same_prompts(study, options):
    class Watching(Empty):
        def segment(self, frames, index, prompts, bank=None):
            if prompts is not None:
                self.asked = [*getattr(self, "asked", []), prompts.points.tolist()]
            return super().segment(frames, index, prompts)

    one, other = Watching(), Watching()
    both = [stub_model(one, "one"), stub_model(other, "other", "1" * 64)]
    outcome = evaluate(plan(study, "image"), both, options)
    assert one.asked == other.asked
    assert [row.weights for row in outcome.rows[:6]] == ["one"] * 3 + ["other"] * 3


def test_the_same_weights_under_two_names_are_run_once(study, options):
    one, other = Empty(), Empty()
    outcome = evaluate(plan(study), [stub_model(one, "one"), stub_model(other, "other")], options)
    assert len(one.calls) > 0 == len(other.calls)
    assert [row.weights for row in outcome.rows[:6]] == ["one"] * 3 + ["other"] * 3


def test_the_batch_changes_no_row(study, options):
    small = evaluate(plan(study), [stub_model(perfect(study))], changed(options, batch=1))
    large = evaluate(
        plan(study), [stub_model(perfect(study))], changed(options, output=study / "out", batch=9)
    )
    key = [row.key for row in large.rows]
    assert sorted(small.rows, key=lambda row: key.index(row.key)) == large.rows


def test_a_label_that_does_not_fit_is_named_and_left_out(study, options, caplog):
    (study / "labels" / "final" / "ct.nii.gz").write_bytes(b"no label")
    with caplog.at_level(logging.WARNING):
        outcome = evaluate(plan(study), [stub_model(perfect_picture(study))], options)
    assert {row.image for row in outcome.rows} == {"colour"}
    assert list(outcome.left_out) == ["ct"]
    assert "ct.nii.gz" in outcome.left_out["ct"]
    assert "ct is left out" in caplog.text


def perfect_picture(study):
    return Perfect(next(case.open(2) for case in list_cases(study) if case.id == "colour"))


def test_where_nothing_fits_it_is_an_error_with_the_reasons(study, options):
    def refuse(axis):
        raise LabelError("label.nii.gz: no")

    with pytest.raises(EvaluationError, match=r"Nothing to evaluate in .*study: a: label\.nii\.gz: no"):
        evaluate(EvaluationPlan([EvaluationCase("a", refuse)], None), [stub_model(Empty())], options)
    with pytest.raises(EvaluationError, match="it has no image"):
        evaluate(EvaluationPlan([], None), [stub_model(Empty())], options)


def test_limit_and_objects_take_a_part_that_the_seed_decides(tmp_path, options):
    folder = write_study(tmp_path / "several", volumes=("ct", "ct2", "ct3"), pictures=())
    outcome = evaluate(plan(folder), [stub_model(Empty())], changed(options, limit=2, objects=1))
    assert [row.image for row in outcome.rows] == ["ct", "ct2"]
    sequence = list_cases(folder)[0].open(2)
    drawn = partial(chosen_objects, sequence, "ct")
    assert drawn(changed(options, objects=1)) == drawn(changed(options, objects=1))
    assert {drawn(changed(options, objects=1, seed=seed)) for seed in range(9)} == {(1,), (2,)}
    assert drawn(options) == (1, 2)


def test_instances_get_one_class(study, options):
    outcome = evaluate(
        plan(study, "image"), [stub_model(Empty())], changed(options, limit=1, instances="cell")
    )
    assert {row.label for row in outcome.rows if row.object} == {"cell"}


def test_one_click_on_small_frames_comes_with_a_note(tmp_path, options):
    folder = write_clip(tmp_path / "clip")
    outcome = evaluate(plan(folder), [stub_model(Empty())], options)
    assert outcome.notes == [
        "clip: one click is ambiguous on frames of 90 x 70 pixels (the paper reports 6.6 J&F on the 112 "
        "pixels of EchoNet-Dynamic)"
    ]
    assert evaluate(plan(folder), [stub_model(Empty())], changed(options, clicks=(3,))).notes == []
