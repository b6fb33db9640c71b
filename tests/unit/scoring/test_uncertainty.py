"""Which images of a DICOM store are downloaded to be scored, and which are not asked for."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore

from lib.engine import predictor_pool as engines_module
from lib.engine.builder import load_network
from lib.engine.predictor_pool import PredictorPool
from lib.images.medical_image import Voxels, make_image
from lib.images.reading import read_image
from lib.metrics.calibration import IDENTITY, Calibration
from lib.scoring import uncertainty
from lib.scoring.prompt_sources import GridSource
from lib.scoring.signals import combine
from lib.scoring.store import ScoreStore, scores_folder
from lib.scoring.uncertainty import (
    NAME,
    TRIES,
    References,
    UncertaintyScoring,
    load_calibration,
    save_calibration,
)
from lib.trainers.publishing import publish_upload
from tests.support.phantoms import rimmed
from tests.support.studies import write_nifti
from tests.unit.scoring.conftest import SETTINGS, save_empty_label, save_label


def test_without_labels_there_is_the_grid(datastore):
    references = References(datastore, 10**6)
    assert [source.name for source in references.sources()] == [references.kind]
    assert references.slices() == []


def test_with_labels_the_nearest_comes_first(datastore, tmp_path):
    save_label(datastore, tmp_path, 0)
    references = References(datastore, 10**6)
    sources = references.sources()
    assert ", ".join(source.name for source in sources) == references.kind
    assert references.sources() is sources
    assert len(references.slices()) == 6
    assert {name for item in references.slices() for name in item.masks} == {"bright", "dark"}


def test_a_label_that_cannot_be_read_is_no_help(datastore, tmp_path, caplog):
    save_label(datastore, tmp_path, 0)
    (tmp_path / "studies" / "labels" / "final" / "case0.nii.gz").write_bytes(b"no label")
    references = References(datastore, 10**6)
    assert [source.name for source in references.sources()] == [references.kind] == [GridSource().name]
    assert "Label of case0 not used as a reference" in caplog.text


def test_where_nothing_is_drawn_there_is_the_grid_until_something_is(datastore, tmp_path):
    save_empty_label(datastore, tmp_path, 0)
    references = References(datastore, 10**6)
    assert [source.name for source in references.sources()] == [references.kind] == [GridSource().name]
    save_label(datastore, tmp_path, 1)
    references = References(datastore, 10**6)
    assert ", ".join(source.name for source in references.sources()) == references.kind
    assert len(references.slices()) == 6


def test_no_image_is_opened_twice_and_none_beyond_the_first_drawn_for_what_kind_it_is(
    datastore, tmp_path, monkeypatch
):
    save_empty_label(datastore, tmp_path, 0)
    for seed in (1, 2):
        save_label(datastore, tmp_path, seed)
    opened = []
    monkeypatch.setattr(
        uncertainty, "read_image", lambda path, most: opened.append(path.name) or read_image(path, most)
    )
    references = References(datastore, 10**6)
    assert references.kind == references.kind
    assert opened == ["case0.nii.gz", "case1.nii.gz"]
    references.sources()
    assert references.slices() == references.slices()
    assert opened == ["case0.nii.gz", "case1.nii.gz", "case2.nii.gz"]


def test_slices_are_shared_among_the_images(datastore, tmp_path, monkeypatch):
    for seed in range(3):
        save_label(datastore, tmp_path, seed)
    monkeypatch.setattr(uncertainty, "MOST_SLICES", 9)
    shared = Counter(item.digest for item in References(datastore, 10**6).slices())
    assert list(shared.values()) == [3, 3, 3]
    # Two of three images, in the middles of two equal shares.
    monkeypatch.setattr(uncertainty, "MOST_SLICES", 2)
    slices = References(datastore, 10**6).slices()
    assert len({item.digest for item in slices}) == len(slices) == 2


def test_a_calibration_is_fitted_anew_when_there_are_many_more_labels(engines, datastore, tmp_path):
    folder, predictor = engines.registry.folder, engines.get()
    calls = []

    def fit():
        calls.clear()
        references = References(datastore, 10**6)
        return references.calibration(predictor, "w", folder, lambda: calls.append(1))

    assert fit().images == 0
    assert not calls
    save_label(datastore, tmp_path, 0)
    assert (fit().images, fit().name) == (1, "")  # twelve pairs are too few
    assert not calls
    save_label(datastore, tmp_path, 1)
    assert fit().images == 2
    assert calls
    assert load_calibration(folder, "w").pairs >= 20
    assert fit() == load_calibration(folder, "w")
    assert not calls


def test_it_is_kept_for_the_weights_that_it_was_fitted_on(tmp_path: Path):
    fitted = Calibration((0.2, 0.8), (0.1, 0.6), 20)
    save_calibration(tmp_path, "v0001", fitted)
    assert load_calibration(tmp_path, "v0001") == fitted
    assert load_calibration(tmp_path, "v0001").name == fitted.name
    assert load_calibration(tmp_path, "v0002") == IDENTITY
    assert (tmp_path / "calibration.json").is_file()


def test_without_one_or_with_a_damaged_one_the_network_is_believed(tmp_path: Path):
    assert load_calibration(tmp_path, "v0001") == IDENTITY
    save_calibration(tmp_path, "v0001", IDENTITY)
    (tmp_path / "calibration.json").write_text("{")
    assert load_calibration(tmp_path, "v0001") == IDENTITY


QUICK = {"slices": 1, "jitters": 2}


@pytest.fixture
def scoring(engines: PredictorPool) -> UncertaintyScoring:
    return UncertaintyScoring(SETTINGS, engines)


@pytest.fixture
def store(engines: PredictorPool, studies: Path) -> ScoreStore:
    return ScoreStore(scores_folder(engines.registry.folder, studies))


def image_digest(name: str) -> str:
    phantom = rimmed(int(name.removeprefix("case")))
    return make_image(Voxels(phantom.image, phantom.affine), Path("x"), "nifti").digest


def counts(summary) -> tuple[int, int, int]:
    return summary["scored"], summary["unchanged"], summary["left"]


def test_every_image_gets_a_score_with_its_parts(scoring, store, datastore):
    summary = scoring(QUICK, datastore)
    assert counts(summary) == (3, 0, 0)
    assert (summary["failed"], summary["weights"]) == ({}, "biosam2_mini")
    for image in ("case0", "case1", "case2"):
        info = datastore.get_image_info(image)[NAME]
        kept = store.get(image)
        assert info["score"] == pytest.approx(kept.score, abs=1e-4)
        assert info["parts"] == pytest.approx(kept.parts, abs=1e-4)
        assert (info["slice"], info["weights"]) == (kept.slice_index, "biosam2_mini")
        assert set(info["parts"]) == {"entropy", "jitter", "presence", "predicted_iou", "stability"}
        json.dumps(datastore.get_image_info(image), allow_nan=False)
        assert np.linalg.norm(kept.embedding) == pytest.approx(1, abs=1e-5)


def test_what_has_not_changed_is_not_scored_again(scoring, store, datastore, studies):
    scoring(QUICK, datastore)
    before = store.get("case1")
    assert counts(scoring(QUICK, datastore)) == (0, 3, 0)
    # The same content in a file that was written again is the same image.
    os.utime(studies / "case0.nii.gz")
    assert counts(scoring(QUICK, datastore)) == (0, 3, 0)
    # Another content is not, and neither is a new image.
    write_nifti(studies / "case1.nii.gz", rimmed(7).image, rimmed(7).affine)
    shutil.copy(studies / "case0.nii.gz", studies / "case9.nii.gz")
    datastore.refresh()
    assert counts(scoring(QUICK, datastore)) == (2, 2, 0)
    assert store.get("case1").digest != before.digest
    assert store.get("case9").score == store.get("case0").score


def test_other_settings_and_other_weights_make_other_scores(scoring, engines, datastore):
    scoring(QUICK, datastore)
    assert counts(scoring({"slices": 1, "jitters": 3}, datastore)) == (3, 0, 0)
    assert counts(scoring({"slices": 1, "jitters": 3, "again": True}, datastore)) == (3, 0, 0)
    smaller = SETTINGS.model_copy(update={"image_size": 64})
    other = UncertaintyScoring(smaller, PredictorPool(smaller, engines.registry.folder))
    assert counts(other({"slices": 1, "jitters": 3}, datastore)) == (3, 0, 0)


def test_a_limit_leaves_the_rest_for_the_next_call(scoring, datastore):
    assert counts(scoring({**QUICK, "max_images": 2}, datastore)) == (2, 0, 1)
    assert NAME not in datastore.get_image_info("case2")
    assert counts(scoring({**QUICK, "max_images": 2}, datastore)) == (1, 2, 0)
    assert NAME in datastore.get_image_info("case2")
    assert counts(scoring({**QUICK, "max_minutes": 1e-9, "again": True}, datastore)) == (0, 0, 3)


def test_a_scoring_that_is_killed_goes_on_where_it_was(scoring, store, datastore, monkeypatch):
    class Killed(BaseException):
        pass

    put = ScoreStore.put

    def put_two(self, image_id, score):
        if image_id == "case2":
            raise Killed
        put(self, image_id, score)

    monkeypatch.setattr(ScoreStore, "put", put_two)
    with pytest.raises(Killed):
        scoring(QUICK, datastore)
    monkeypatch.undo()
    assert counts(scoring(QUICK, datastore)) == (1, 2, 0)


def test_another_datastore_on_the_same_model_has_scores_of_its_own(
    scoring, engines, store, datastore, tmp_path
):
    scoring(QUICK, datastore)
    before = store.get("case0")
    other = tmp_path / "other" / "studies"
    other.mkdir(parents=True)
    write_nifti(other / "case0.nii.gz", rimmed(7).image, rimmed(7).affine)
    other_store = ScoreStore(scores_folder(engines.registry.folder, other))
    assert other_store.get("case0") is None
    opened = LocalDatastore(str(other), extensions=("*.nii.gz",), auto_reload=False)
    assert counts(scoring(QUICK, opened)) == (1, 0, 0)
    assert other_store.get("case0").digest != before.digest
    assert store.get("case0").digest == before.digest
    assert counts(scoring(QUICK, datastore)) == (0, 3, 0)


def test_a_score_is_of_the_weights_that_made_it_whatever_is_published_meanwhile(
    scoring, engines, store, datastore, monkeypatch
):
    def load_and_publish(*arguments):
        network = load_network(*arguments)
        monkeypatch.setattr(engines_module, "load_network", load_network)
        others = PredictorPool(SETTINGS, engines.registry.folder)
        with engines.registry.path("biosam2_mini").open("rb") as file:
            publish_upload(file, others.weights(), engines.registry, "cpu")
        return network

    monkeypatch.setattr(engines_module, "load_network", load_and_publish)
    assert scoring(QUICK, datastore)["weights"] == "biosam2_mini"
    assert store.get("case0").weights == "biosam2_mini"
    again = scoring(QUICK, datastore)
    assert (counts(again), again["weights"]) == ((3, 0, 0), "v0001")


def test_an_info_that_was_lost_is_written_again(scoring, datastore):
    scoring(QUICK, datastore)
    info = datastore.get_image_info("case0")[NAME]
    datastore.update_image_info("case0", {NAME: None})
    assert counts(scoring(QUICK, datastore)) == (0, 3, 0)
    assert datastore.get_image_info("case0")[NAME] == info


def test_images_without_a_label_come_first_and_alone_where_that_is_asked(scoring, store, datastore, tmp_path):
    save_label(datastore, tmp_path, 0)
    assert counts(scoring({**QUICK, "max_images": 2}, datastore)) == (2, 0, 1)
    assert store.get("case0") is None
    assert counts(scoring({**QUICK, "images": "unlabelled"}, datastore)) == (0, 2, 0)


def test_the_first_label_brings_better_prompts_and_the_second_changes_nothing(
    scoring, store, datastore, tmp_path
):
    # Who looked and found nothing to draw has labelled, and it brings no prompts.
    save_empty_label(datastore, tmp_path, 0)
    scoring(QUICK, datastore)
    assert store.get("case2").labels == ()
    save_label(datastore, tmp_path, 0)
    assert counts(scoring(QUICK, datastore)) == (3, 0, 0)
    assert store.get("case2").labels == ("bright", "dark")
    assert datastore.get_image_info("case2")[NAME]["labels"] == ["bright", "dark"]
    save_label(datastore, tmp_path, 1)
    assert counts(scoring(QUICK, datastore)) == (0, 3, 0)


def test_images_that_cannot_be_used_are_named_and_stop_no_other(scoring, datastore, studies, caplog):
    (studies / "broken.nii.gz").write_bytes(b"this is no image")
    nan = np.full((6, 6, 3), np.nan, np.float32)
    write_nifti(studies / "nan.nii.gz", nan, np.eye(4))
    datastore.refresh()
    with caplog.at_level(logging.WARNING):
        summary = scoring(QUICK, datastore)
    assert counts(summary) == (3, 0, 0)
    assert set(summary["failed"]) == {"broken", "nan"}
    assert "NaN" in summary["failed"]["nan"]
    assert "broken skipped" in caplog.text


def test_an_answer_in_no_numbers_leaves_out_its_image_alone(scoring, engines, datastore, monkeypatch):
    predictor = engines.get()
    outputs = predictor.outputs
    broken = image_digest("case1")

    def in_no_numbers(frames, index, prompts):
        found = outputs(frames, index, prompts)
        return replace(found, ious=found.ious * np.nan) if frames.digest == broken else found

    monkeypatch.setattr(predictor, "outputs", in_no_numbers)
    summary = scoring({"slices": 1, "jitters": 0}, datastore)
    assert counts(summary) == (3, 0, 0)
    assert "predicted_iou" not in datastore.get_image_info("case1")[NAME]["parts"]
    vector = uncertainty.score_image

    def without_direction(predictor, frames, *others):
        found = vector(predictor, frames, *others)
        return replace(found, embedding=found.embedding * np.nan) if frames.digest == broken else found

    monkeypatch.setattr(uncertainty, "score_image", without_direction)
    summary = scoring({"slices": 1, "jitters": 0, "again": True}, datastore)
    assert counts(summary) == (2, 0, 0)
    assert "finite" in summary["failed"]["case1"]


def test_a_calibration_is_fitted_on_accepted_labels_and_reaches_old_scores(
    scoring, store, datastore, tmp_path
):
    # 6 slices of two bodies on three images are 36 pairs, more than the 20 that are needed.
    for seed in range(3):
        save_label(datastore, tmp_path, seed)
    scoring(QUICK, datastore)
    kept = store.get("case0")
    key = kept.settings.split(": ", 1)[1].split(",")[0]
    fitted = load_calibration(store.folder, key)
    assert fitted.images == 3
    assert fitted.pairs >= 20
    assert kept.calibration == fitted.name
    assert kept.score == pytest.approx(combine(kept.parts, fitted))
    assert kept.score != pytest.approx(combine(kept.parts))
    # A score from before the calibration is combined anew, without the network.
    store.put("case0", replace(kept, score=combine(kept.parts), calibration=""))
    assert counts(scoring(QUICK, datastore)) == (0, 3, 0)
    assert store.get("case0").score == pytest.approx(kept.score)
    assert datastore.get_image_info("case0")[NAME]["score"] == pytest.approx(kept.score, abs=1e-4)
    assert isinstance(fitted, Calibration)


def test_the_options_are_shown_and_those_of_monai_label_are_not_refused(scoring, datastore):
    config = scoring.info()["config"]
    assert (config["slices"], config["images"]) == (6, "all")
    asked = {
        **QUICK,
        "method": NAME,
        "client_id": "me",
        "gpus": "all",
        "dice": {"again": True},
        "device": ["cpu"],
    }
    assert scoring.options(asked).jitters == 2


class Remote:
    """A datastore whose images have to be downloaded first; some cannot be."""

    def __init__(self, datastore, here, broken):
        self._store, self.here, self._broken, self.asked = datastore, set(here), set(broken), 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def is_here(self, image_id):
        return image_id in self.here

    def get_image_uri(self, image_id):
        if image_id not in self.here:
            self.asked += 1
            if image_id in self._broken:
                raise RuntimeError("the store does not give it")
            self.here.add(image_id)
        return self._store.get_image_uri(image_id)


@pytest.fixture
def many(datastore, studies):
    """Beside the three images, nine that are broken: by name they come first."""
    for number in range(9):
        (studies / f"away{number}.nii.gz").write_bytes(b"")
    datastore.refresh()
    return datastore


def test_images_that_cannot_be_downloaded_do_not_keep_others_from_it(scoring, many):
    remote = Remote(many, (), [f"away{number}" for number in range(9)])
    summary = scoring({**QUICK, "downloads": 3}, remote)
    assert (summary["scored"], summary["unchanged"]) == (3, 0)
    assert remote.here == {"case0", "case1", "case2"}
    assert "does not give it" in next(iter(summary["failed"].values()))


def test_of_those_that_can_be_downloaded_few_are(scoring, datastore):
    remote = Remote(datastore, ["case1"], ())
    assert scoring({**QUICK, "downloads": 1}, remote)["scored"] == 2
    assert len(remote.here) == 2
    assert scoring({**QUICK, "downloads": 0}, remote)["unchanged"] == 2


def test_a_store_that_is_away_is_not_asked_for_everything_and_each_time_for_others(scoring, many):
    remote = Remote(many, (), [f"away{number}" for number in range(9)])
    for _ in range(200):
        remote.asked = 0
        scoring({**QUICK, "downloads": 1}, remote)
        assert remote.asked <= TRIES
        if remote.here == {"case0", "case1", "case2"}:
            return
    pytest.fail("an image that can be downloaded was never asked for")
