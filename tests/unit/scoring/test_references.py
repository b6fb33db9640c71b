from __future__ import annotations

from collections import Counter
from pathlib import Path

from lib.images.reading import read_image
from lib.metrics.calibration import IDENTITY, Calibration
from lib.scoring import references as references_module
from lib.scoring.references import References, load_calibration, save_calibration
from lib.scoring.signals.prompt_sources import GridSource
from tests.unit.scoring.conftest import save_empty_label, save_label


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
        references_module, "read_image", lambda path, most: opened.append(path.name) or read_image(path, most)
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
    monkeypatch.setattr(references_module, "MOST_SLICES", 9)
    shared = Counter(item.digest for item in References(datastore, 10**6).slices())
    assert list(shared.values()) == [3, 3, 3]
    # Two of three images, in the middles of two equal shares.
    monkeypatch.setattr(references_module, "MOST_SLICES", 2)
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
