from __future__ import annotations

import json

import numpy as np
import pytest

from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import PredictorPool
from lib.images.medical_image import Voxels, make_image
from lib.labels.values import LabelMap
from lib.scoring.agreement import DICE, NSD, AgreementScoring, asked_pairs, kept_pairs, spacing_of
from lib.scoring.base import Scoring
from lib.scoring.registry import all_methods
from tests.support.phantoms import dice as reference_dice
from tests.support.phantoms import rimmed
from tests.support.studies import write_nifti
from tests.unit.scoring.conftest import LABEL_INFO, SETTINGS, save_label


@pytest.fixture
def dice(engines: PredictorPool) -> Scoring:
    return all_methods(SETTINGS, engines)["dice"]


@pytest.fixture
def nsd(engines: PredictorPool) -> Scoring:
    return all_methods(SETTINGS, engines)["nsd"]


def test_without_labels_there_is_nothing_to_compare(dice, datastore):
    summary = dice({}, datastore)
    assert (summary["scored"], summary["dice"]) == (0, {"images": 0})
    assert "dice" not in datastore.get_image_info("case0")


def test_the_label_that_the_model_made_is_compared_with_the_one_that_was_accepted(dice, datastore, tmp_path):
    save_label(datastore, tmp_path, 0, "original", shift=3)
    save_label(datastore, tmp_path, 0, "final")
    summary = dice({}, datastore)
    truth = rimmed(0).objects
    expected = {name: reference_dice(np.roll(mask, 3, axis=0), mask) for name, mask in truth.items()}
    info = datastore.get_image_info("case0")
    assert info["dice_details"]["by_label"] == pytest.approx(expected, abs=1e-4)
    assert info["dice"] == pytest.approx(np.mean(list(expected.values())), abs=1e-4)
    assert info["dice_details"]["against"] == "original"
    assert summary["dice"] == {"images": 1, "mean": pytest.approx(info["dice"])}
    json.dumps(info, allow_nan=False)


def test_an_answer_that_was_accepted_as_it_was_is_1(dice, nsd, datastore, tmp_path):
    for tag in ("original", "final"):
        save_label(datastore, tmp_path, 1, tag)
    dice({}, datastore)
    nsd({}, datastore)
    info = datastore.get_image_info("case1")
    assert (info["dice"], info["nsd"]) == (1.0, 1.0)


def test_a_surface_may_be_off_by_the_tolerance(nsd, datastore, tmp_path):
    # The voxels are 1 mm along i, and the answer is off by 3 of them.
    save_label(datastore, tmp_path, 0, "original", shift=3)
    save_label(datastore, tmp_path, 0, "final")
    nsd({"tolerance_mm": 3}, datastore)
    assert datastore.get_image_info("case0")["nsd"] == 1
    nsd({"tolerance_mm": 0.5}, datastore)
    assert 0 < datastore.get_image_info("case0")["nsd"] < 0.6


def test_where_no_answer_was_kept_the_model_is_asked(dice, nsd, datastore, tmp_path):
    save_label(datastore, tmp_path, 2)
    dice({}, datastore)
    nsd({}, datastore)
    info = datastore.get_image_info("case2")
    # The bundled weights take the cores of these bodies and leave their rims.
    assert 0.3 < info["dice"] < 0.98
    assert 0 <= info["nsd"] <= 1
    assert set(info["dice_details"]["by_label"]) == {"bright", "dark"}
    assert info["dice_details"]["against"] == "model"


def test_both_numbers_come_from_one_question_to_the_model(
    engines, dice, nsd, datastore, tmp_path, monkeypatch
):
    save_label(datastore, tmp_path, 2)
    dice({}, datastore)
    nsd({}, datastore)
    alone = datastore.get_image_info("case2")
    asked = []
    segment = Predictor.segment
    monkeypatch.setattr(Predictor, "segment", lambda *given: asked.append(given) or segment(*given))
    both = AgreementScoring("agreement", "", (DICE, NSD), SETTINGS, engines)
    assert both({}, datastore)["unchanged"] == 1
    assert not asked
    dice({"again": True}, datastore)
    for_one = len(asked)
    summary = both({"again": True}, datastore)
    assert len(asked) == 2 * for_one
    info = datastore.get_image_info("case2")
    assert (info["dice_details"], info["nsd_details"]) == (alone["dice_details"], alone["nsd_details"])
    assert summary["nsd"] == {"images": 1, "mean": pytest.approx(info["nsd"])}


def test_only_what_changed_is_compared_again(dice, datastore, tmp_path):
    save_label(datastore, tmp_path, 0)
    save_label(datastore, tmp_path, 1)
    assert (dice({}, datastore)["scored"], dice({}, datastore)["scored"]) == (2, 0)
    save_label(datastore, tmp_path, 1, "original")
    summary = dice({}, datastore)
    assert (summary["scored"], summary["unchanged"], summary["dice"]["images"]) == (1, 1, 2)
    assert dice({"again": True}, datastore)["scored"] == 2


def test_a_class_that_the_model_missed_counts_and_names_that_are_others_are_one_object(
    dice, datastore, tmp_path
):
    truth = rimmed(0).objects
    bright = truth["bright"].astype(np.uint8)
    path = write_nifti(tmp_path / "case0.nii.gz", bright, rimmed(0).affine)
    datastore.save_label("case0", str(path), "original", {"label_info": LABEL_INFO[:1]})
    save_label(datastore, tmp_path, 0)
    dice({}, datastore)
    assert datastore.get_image_info("case0")["dice_details"]["by_label"] == {"bright": 1.0, "dark": 0.0}
    datastore.save_label("case0", str(path), "original", {"label_info": [{"name": "thing", "idx": 1}]})
    dice({"again": True}, datastore)
    both = (truth["bright"] | truth["dark"]).astype(np.uint8)
    expected = {"bright, dark": pytest.approx(reference_dice(bright, both), abs=1e-4)}
    assert datastore.get_image_info("case0")["dice_details"]["by_label"] == expected


def test_where_a_person_found_nothing(dice, datastore, tmp_path):
    nothing = write_nifti(
        tmp_path / "case0.nii.gz", np.zeros(rimmed(0).image.shape, np.uint8), rimmed(0).affine
    )
    datastore.save_label("case0", str(nothing), "final", {"label_info": LABEL_INFO})
    assert dice({}, datastore)["dice"] == {"images": 0}
    assert datastore.get_image_info("case0")["dice"] is None
    save_label(datastore, tmp_path, 0, "original")
    dice({}, datastore)
    assert datastore.get_image_info("case0")["dice_details"]["by_label"] == {"bright": 0.0, "dark": 0.0}
    datastore.save_label("case0", str(nothing), "original", {"label_info": LABEL_INFO})
    assert dice({}, datastore)["dice"] == {"images": 1, "mean": 1.0}


def test_a_label_that_cannot_be_read_is_named_and_stops_no_other(dice, datastore, tmp_path):
    save_label(datastore, tmp_path, 0)
    save_label(datastore, tmp_path, 1)
    (tmp_path / "studies" / "labels" / "final" / "case0.nii.gz").write_bytes(b"no label")
    summary = dice({}, datastore)
    assert set(summary["failed"]) == {"case0"}
    assert summary["scored"] == 1


def volume(tmp_path, affine=None, is_2d=False, shape=(6, 5, 2)):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    voxels = Voxels(array, np.eye(4) if affine is None else affine, is_2d=is_2d)
    return make_image(voxels, tmp_path / "x.nii.gz", "nifti")


def test_voxels_have_a_size_and_pixels_of_a_picture_have_none(tmp_path):
    affine = np.diag([-0.5, 2.0, 3.0, 1.0])
    assert spacing_of(volume(tmp_path, affine)) == pytest.approx((0.5, 2, 3))
    assert spacing_of(volume(tmp_path, affine, is_2d=True, shape=(6, 5, 1))) == (1, 1, 1)


def test_a_picture_is_compared_in_its_plane(tmp_path):
    image = volume(tmp_path, is_2d=True, shape=(6, 5, 1))
    marks = np.zeros((6, 5, 1), np.uint8)
    marks[1:3, 1:4] = 1
    marks[4:6, 1:4] = 2  # two cells of one class
    labels = LabelMap(marks, {1: "cell", 2: "cell"})
    (pair,) = kept_pairs(image, labels, labels)
    assert (pair.label, pair.found.shape, pair.spacing) == ("cell", (6, 5), (1, 1))
    assert pair.found.sum() == pair.accepted.sum() == 12


def test_the_model_is_asked_slice_by_slice_in_the_plane_of_the_frame(tmp_path, engines):
    phantom = rimmed(0)
    image = make_image(Voxels(phantom.image, phantom.affine), tmp_path / "x.nii.gz", "nifti")
    values = sum(value * mask.astype(np.uint8) for value, mask in enumerate(phantom.objects.values(), 1))
    labels = LabelMap(values, {1: "bright", 2: "dark"})
    calls = []
    pairs = list(asked_pairs(engines.get(), image, labels, lambda: calls.append(1)))
    assert {pair.label for pair in pairs} == {"bright", "dark"}
    assert len(calls) == len(pairs)
    for pair in pairs:
        assert pair.found.shape == pair.accepted.shape == (48, 60)
        assert pair.spacing == pytest.approx((1.5, 1.0))  # along y, then x
        assert reference_dice(pair.found, pair.accepted) > 0.2
