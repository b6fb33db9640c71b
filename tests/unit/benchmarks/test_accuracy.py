import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import accuracy
from benchmarks.accuracy import all_items, copy_images, report, write
from benchmarks.items import find_data
from benchmarks.trials import GRABCUT, OURS


def test_the_data_pack_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("BIOSAM2_DATA", str(tmp_path))
    assert find_data() is None
    (tmp_path / "manifest.json").write_text('{"items": []}')
    assert find_data() == tmp_path


def test_without_a_pack_phantoms_are_measured_and_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("BIOSAM2_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("BIOSAM2_TRAINING_DATA", str(tmp_path / "nothing"))
    items, held_out, about = all_items(tmp_path, 4)
    assert held_out == []
    assert {item.modality for item in items} == {"phantom"}
    assert about.startswith("No real images: BIOSAM2_DATA names no folder")


def test_the_datastore_gets_images_under_their_ids_and_no_truth(item_of, tmp_path):
    item = item_of("ct")
    source = tmp_path / "source"
    source.mkdir()
    (source / "volume.nii.gz").write_bytes(b"x")
    item = type(item)(**{**vars(item), "image": source / "volume.nii.gz"})
    copy_images([item], tmp_path / "studies")
    assert [path.name for path in (tmp_path / "studies").iterdir()] == ["ct.nii.gz"]


@pytest.fixture
def trials(trials_of):
    trials = trials_of({("box", OURS): 0.9, ("box", GRABCUT): 0.8})
    for trial in trials:
        trial.levels = np.zeros((4, 4, 3), np.uint8)
        trial.boxed = {OURS: trial.target.truth}
    return trials


def test_a_report_names_weights_and_protocol(trials):
    text = report(trials, "Real images.", "mini, 256 px")
    assert text.startswith("Real images.\n\nWeights: mini, 256 px.")
    assert accuracy.PROTOCOL in text


def test_everything_is_written(trials, tmp_path):
    write(trials, "text", tmp_path)
    assert (tmp_path / "accuracy.md").read_text() == "text"
    (numbers,) = json.loads((tmp_path / "accuracy.json").read_text())
    assert numbers["box"] == {OURS: 0.9, GRABCUT: 0.8}
    assert (tmp_path / "accuracy.csv").read_text().startswith("image,modality,group,split,object,slice,")
    with Image.open(tmp_path / "accuracy.png") as picture:
        assert picture.width > 1000
