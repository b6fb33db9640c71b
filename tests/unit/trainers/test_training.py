"""Whole trainings on small volumes with the bundled network: what is published, kept, and gone on with."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from lib.engine.model_versions import Versions
from lib.engine.openvino_parts import FORM
from lib.engine.predictor_pool import PredictorPool
from lib.engine.registry import Registry
from lib.errors import CheckpointError, TrainingError
from lib.metrics.calibration import Calibration
from lib.settings import Settings
from lib.trainers.distributed import launch
from lib.trainers.progress import read_stats
from lib.trainers.publishing import publish_upload
from lib.trainers.training import Training, plain_errors, train
from tests.support.server import copy_model_folder
from tests.unit.trainers.conftest import plan_of, write_labelled_images

# So small a gain that any is enough: what is tested is the way and not the learning.
ANY = {"min_gain": 0.0}


# A training that gains much: it learns that rims belong to their cores.
GOOD = {"max_epochs": 2, "steps_per_epoch": 8, "batch_size": 3}
GOOD |= {"learning_rate": 5e-4, "clip_share": 0.1, "image_size": 128}


@pytest.fixture
def good(make_plan):
    """A training that will gain much."""
    return make_plan(**GOOD, val_objects=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training that has gained much; nothing of it is changed afterwards."""
    workdir = tmp_path_factory.mktemp("trained")
    labelled = write_labelled_images(workdir / "studies")
    # As many objects as a calibration needs.
    plan = plan_of(labelled, copy_model_folder(workdir / "model"), **GOOD, val_objects=8)
    train(plan)
    return plan


def test_a_training_is_published_with_its_record_and_served(trained):
    good = trained
    stats = read_stats(good.folder)
    assert stats["status"] == "published", stats
    versions = Versions(good.model_dir)
    assert versions.current() == "v0001"
    record = versions.read("v0001")
    assert (record.base, record.parent, record.image_size) == ("biosam2_mini", None, 128)
    assert record.metrics["after"]["dice"] >= record.metrics["before"]["dice"] + 0.005
    assert {item["side"] for item in record.data} == {"train", "val"}
    assert record.options["preset"] == "decoder"
    # Confidences of the validation targets: three prompts on each of eight objects of one image.
    calibration = Calibration.from_json(record.calibration)
    assert (calibration.pairs, calibration.images) == (24, 1)
    assert 0 <= calibration(0.9) <= 1
    assert 0 <= record.metrics["calibration_error"] <= 1
    folder = versions.folder("v0001")
    assert {"weights.pt", "network.yaml", "version.json", "report.html"} <= {p.name for p in folder.iterdir()}
    assert list((folder / "tensorboard").glob("events.*"))
    engines = PredictorPool(Settings(precision="fp32"), good.model_dir)
    assert engines.get().name == "v0001"
    assert "fine-tuned from biosam2_mini" in engines.status()["served"]["cpu"]


def test_a_version_is_converted_before_it_is_served_and_served_without(good, monkeypatch):
    converted, versions = [], Versions(good.model_dir)

    def convert(weights, model_dir, dtype, folder):
        converted.append((dtype, folder.parent.parent == weights.path.parent, versions.current()))
        folder.mkdir(parents=True)
        (folder / "mask_decoder.xml").write_text("converted")
        raise CheckpointError("the conversion failed at its end")

    monkeypatch.setattr("lib.trainers.publishing.convert_in_child", convert)
    train(replace(good, convert_for=torch.bfloat16))
    assert converted == [(torch.bfloat16, True, None)]
    assert versions.current() == "v0001"
    (part,) = (versions.folder("v0001") / "openvino").glob("*/mask_decoder.xml")
    sha256 = versions.read("v0001").sha256
    assert part.parent.name == f"{sha256[:16]}-128-bfloat16-{FORM}"


def test_the_report_is_one_page_with_pictures(trained):
    page = (trained.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "Published" in page
    assert "Reliability diagram" in page
    assert "http://" not in page
    assert "https://" not in page


def test_numbers_for_viewers_are_finite_and_complete(trained):
    text = (trained.folder / "stats.json").read_text()
    stats = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the stats"))
    assert (stats["epoch"], stats["total_epochs"]) == (2, 2)
    assert 0 < stats["best_metric"] <= 1
    assert stats["total_time"].count(":") == 2
    assert stats["before"]["dice"] < stats["after"]["dice"]
    assert stats["published"] is True
    assert stats["reason"].startswith("Dice 0.")


@pytest.mark.parametrize("harm", ["rate", "labels"])
def test_a_training_that_makes_things_worse_is_not_published(make_plan, labelled, harm):
    if harm == "labels":
        rng = np.random.default_rng(0)
        for item in labelled:
            label = nib.load(item.label)
            mixed = rng.permutation(np.asarray(label.dataobj).ravel()).reshape(label.shape)
            nib.save(nib.Nifti1Image(mixed, label.affine), item.label)
    plan = make_plan(steps_per_epoch=4, learning_rate=1.0 if harm == "rate" else 1e-4)
    with contextlib.suppress(TrainingError):
        train(plan)
    stats = read_stats(plan.folder)
    assert stats["status"] in ("kept", "failed"), stats
    assert Versions(plan.model_dir).current() is None
    assert PredictorPool(Settings(precision="fp32"), plan.model_dir).get().name == "biosam2_mini"


def test_the_next_training_starts_from_the_published_one(trained, tmp_path):
    model_dir = shutil.copytree(trained.model_dir, tmp_path / "model", symlinks=True)
    weights = PredictorPool(Settings(precision="fp32"), model_dir).weights()
    plan = plan_of(list(trained.images), model_dir, **ANY)
    again = replace(plan, weights=weights, service=weights, published="v0001")
    train(again)
    versions = Versions(model_dir)
    if (name := versions.current()) == "v0002":
        record = versions.read(name)
        assert (record.parent, record.before) == ("v0001", "v0001")
    assert read_stats(again.folder)["before"]["dice"] == pytest.approx(
        versions.read("v0001").metrics["after"]["dice"], abs=0.2
    )


def test_weights_that_a_person_put_in_service_meanwhile_stay(good, monkeypatch):
    original = Training._save

    def save_and_upload(self, optimizer, fingerprint):
        original(self, optimizer, fingerprint)
        if self._state.epoch == 1:
            with good.service.path.open("rb") as file:
                publish_upload(file, good.service, Registry(good.model_dir), "cpu")

    monkeypatch.setattr(Training, "_save", save_and_upload)
    train(good)
    versions, stats = Versions(good.model_dir), read_stats(good.folder)
    assert (versions.current(), versions.names()) == ("v0001", ["v0001", "v0002"])
    assert (stats["status"], stats["version"]) == ("kept", "v0001")
    assert "but v0001 came into service meanwhile" in stats["message"]
    assert "--conf rollback v0002" in stats["message"]
    assert "Rejected" in (good.folder / "report.html").read_text()
    # It can be served all the same, and who goes back from it comes to what the person chose.
    versions.switch("v0002")
    assert (versions.read("v0002").before, versions.read("v0002").parent) == ("v0001", None)


def _spoil(label: Path) -> None:
    label.write_bytes(b"this is no label")


def _wipe(label: Path) -> None:
    drawn = nib.load(label)
    nib.save(nib.Nifti1Image(np.zeros(drawn.shape, np.uint8), drawn.affine), label)


@pytest.mark.parametrize("change", [_spoil, _wipe])
def test_a_label_that_cannot_be_used_is_left_out_by_name_and_the_rest_is_learned(make_plan, labelled, change):
    change(labelled[0].label)
    plan = make_plan()
    train(plan)
    stats = read_stats(plan.folder)
    assert stats["status"] in ("published", "kept")
    (left_out,) = stats["left_out"]
    assert left_out["image"] == "case0"
    assert "case0" in left_out["reason"]


def test_fewer_than_two_labelled_images_say_so(make_plan, labelled):
    plan = replace(make_plan(), images=(labelled[0],))
    with pytest.raises(TrainingError, match="at least 2"):
        train(plan)
    stats = read_stats(plan.folder)
    assert stats["status"] == "failed"
    assert "at least 2" in stats["message"]
    assert stats["start_time"] == "2001-09-09 01:46:40"  # as planned


def test_a_training_that_was_cut_off_goes_on(make_plan, monkeypatch):
    plan = make_plan(max_epochs=3)
    original = Training._save

    def cut_off(self, learner, fingerprint):
        original(self, learner, fingerprint)
        if self._state.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(plan)
    monkeypatch.undo()
    assert torch.load(plan.state_path, weights_only=True)["training"]["epoch"] == 2
    train(plan)
    stats = read_stats(plan.folder)
    assert stats["epoch"] == 3
    page = (plan.folder / "report.html").read_text()
    assert "3 epochs" in page
    assert not plan.state_path.exists()


def test_the_state_of_another_training_is_not_taken_up(make_plan):
    plan = make_plan()
    plan.folder.mkdir(parents=True)
    torch.save({"fingerprint": "another", "optimizer": {}, "training": {}}, plan.state_path)
    train(plan)
    assert read_stats(plan.folder)["epoch"] == 1
    plan.state_path.write_bytes(b"damaged")
    train(plan)
    assert read_stats(plan.folder)["status"] in ("published", "kept")


def test_a_full_disk_is_said_and_loses_nothing(good, monkeypatch):
    def full(path, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    # A disk cannot be filled here: writing the weights fails instead, as it does then.
    monkeypatch.setattr("lib.trainers.publishing.save_weights", full)
    with pytest.raises(TrainingError, match="disk is full"):
        train(good)
    assert read_stats(good.folder)["status"] == "failed"
    assert not good.frames_folder.exists()
    assert Versions(good.model_dir).names() == []
    assert PredictorPool(Settings(precision="fp32"), good.model_dir).get().name == "biosam2_mini"


def test_a_time_limit_ends_the_training_with_what_it_has(make_plan):
    plan = make_plan(max_epochs=1000, steps_per_epoch=200, max_minutes=0.02)
    train(plan)
    assert read_stats(plan.folder)["epoch"] == 1


def test_no_better_epochs_end_the_training(make_plan, monkeypatch):
    plan = make_plan(max_epochs=50, early_stop_patience=2, learning_rate=1e-9, steps_per_epoch=1)
    train(plan)
    assert read_stats(plan.folder)["epoch"] <= 6


def test_two_processes_learn_together_and_one_publishes(good):
    # gloo on a CPU in the place of nccl on two GPUs.
    launch(train, good, 2)
    assert read_stats(good.folder)["status"] == "published"
    assert Versions(good.model_dir).names() == ["v0001"]


def test_what_goes_wrong_is_said_for_a_person(tmp_path):
    for error, words in (
        (TrainingError("as it is"), "as it is"),
        (CheckpointError("the file is damaged"), "the file is damaged"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full.*nothing is lost"),
        (MemoryError(), "Out of memory.*smaller image_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), "Out of memory.*smaller image_size"),
    ):
        with pytest.raises(TrainingError, match=words), plain_errors(tmp_path / "frames"):
            raise error


def test_a_full_disk_gets_its_scratch_back_and_nothing_else(tmp_path):
    scratch, kept = tmp_path / "frames", tmp_path / "weights.pt"
    scratch.mkdir()
    (scratch / "levels.npy").write_bytes(b"x")
    kept.write_bytes(b"x")
    with pytest.raises(TrainingError), plain_errors(scratch):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == [kept]


def test_a_defect_of_ours_stays_what_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), plain_errors(tmp_path):
        _ = 1 / 0
    with pytest.raises(PermissionError), plain_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
