import shutil
from dataclasses import replace

import pytest

from lib.engine.download import MODEL_DIR
from lib.errors import CheckpointError, DeviceError, EvaluationError
from lib.evaluation.models import fingerprint, open_models
from lib.evaluation.protocol import MetricRules
from tests.unit.evaluation.conftest import Perfect, changed, stub_model


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
