import json
import re

import numpy as np
import pytest

from lib.dashboard import labels_over_time, learning_curve, main, read_records, write_overview
from lib.engine.model_versions import CONFIG_FILE, WEIGHTS_FILE, Versions
from lib.scoring.store import ImageScore, ScoreStore, scores_folder
from tests.support.studies import write_nifti

HOUR = 3600


def entry(ts=None, who=None, dice=None):
    labels = {} if ts is None else {"final": {"ext": ".nii.gz", "info": {"ts": ts, "client_id": who}}}
    if dice is not None:
        labels["final"]["info"]["dice"] = dice
    return {"image": {"ext": ".nii.gz", "info": {}}, "labels": labels}


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    names = {"a": entry(1000, "ann", 0.9), "b": entry(1000 + HOUR, "bob", 0.6)}
    names |= {"c": entry(1000 + 3 * HOUR, "ann"), "<d>": entry(), "e": entry()}
    (folder / "datastore_v2.json").write_text(json.dumps({"name": "x", "objects": names}))
    for name in ("<d>", "e"):
        image = np.random.default_rng(0).integers(0, 900, (30, 20, 6)).astype(np.int16)
        write_nifti(folder / f"{name}.nii.gz", image, np.eye(4))
    return folder


@pytest.fixture
def model_dir(tmp_path):
    folder = tmp_path / "model"
    store = ScoreStore(scores_folder(folder, tmp_path / "studies"))
    for name, score in (("<d>", 0.8), ("e", 0.3)):
        vector = np.ones(4, np.float32) / 2
        store.put(name, ImageScore(score, {"entropy": score}, 3, vector, ("liver",), "v0001", "d", 1.0))
    versions = Versions(folder)
    for before, after, images in ((0.5, 0.6, 2), (0.6, 0.7, 5)):
        with versions.new_folder() as new:
            (new / WEIGHTS_FILE).write_bytes(b"x")
            (new / CONFIG_FILE).write_text("x")
            data = [{"image": str(n), "side": "train"} for n in range(images)] + [{"side": "val"}]
            metrics = {"before": {"dice": before, "box": 0.8}, "after": {"dice": after, "box": 0.9}}
            record = {"base": "biosam2_mini", "parent": versions.current(), "image_size": 64}
            record |= {"rendered_prompts": True, "sha256": "0", "created": "2026-01-02T03:04:05+00:00"}
            versions.switch(versions.add(new, {**record, "metrics": metrics, "data": data}).name)
    return folder


def test_one_page_with_everything_and_nothing_from_elsewhere(studies, model_dir, tmp_path):
    output = tmp_path / "out" / "report.html"
    main(["--studies", str(studies), "--model-dir", str(model_dir), "--output", str(output)])
    page = output.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") == 4
    assert "&lt;d&gt;" in page
    assert "<d>" not in page
    assert re.search(r"Labelled</th><td>3<", page)
    assert "v0002 (in service)" in page
    # The one that people corrected most, and the image that the model is least sure of, come first.
    assert page.index(">b</td>") < page.index(">a</td>")
    assert page.index("&lt;d&gt;</td>") < page.index(">e</td>")


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    write_overview(tmp_path, tmp_path / "model", tmp_path / "report.html", 1000)
    page = (tmp_path / "report.html").read_text()
    for sentence in (
        "No labels yet",
        "No published training yet",
        "run scoring",
        "No score of an unlabelled image yet",
    ):
        assert sentence in page


def test_a_folder_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["--studies", "/nowhere/at/all"])
    assert "/nowhere/at/all" in capsys.readouterr().err


def test_an_image_that_cannot_be_opened_has_no_thumbnail_and_is_listed(studies, model_dir, tmp_path):
    (studies / "e.nii.gz").write_bytes(b"broken")
    write_overview(studies, model_dir, tmp_path / "report.html", 1_000_000)
    assert ">e</td>" in (tmp_path / "report.html").read_text()


def test_a_damaged_record_is_no_obstacle(tmp_path):
    for text in ["", "{", "[]", '{"objects": []}', '{"objects": {"a": 3, "b": {"image": 7}}}']:
        (tmp_path / "datastore_v2.json").write_text(text)
        assert all(record.labelled_at is None for record in read_records(tmp_path))


def test_labels_are_counted_by_hour_and_annotator(studies):
    series = labels_over_time(read_records(studies))
    assert series == {
        "all (3)": [(0.0, 1.0), (1.0, 2.0), (3.0, 3.0)],
        "ann (2)": [(0.0, 1.0), (3.0, 2.0)],
        "bob (1)": [(1.0, 1.0)],
    }


@pytest.mark.parametrize("name", ["all", "all (3)"])
def test_whatever_an_annotator_is_called_the_line_of_all_stays(studies, name):
    record = studies / "datastore_v2.json"
    record.write_text(record.read_text().replace("bob", name))
    series = labels_over_time(read_records(studies))
    assert list(series) == ["all (3)", f"{name} (1)", "ann (2)"]
    assert series["all (3)"] == [(0.0, 1.0), (1.0, 2.0), (3.0, 3.0)]


def test_whatever_clients_say_of_their_labels_there_is_a_page(tmp_path):
    for info in [{"client_id": "half \ud800"}, {"dice": 10**400}, {"ts": 10**400}]:
        said = {"ts": 1000, "client_id": "ann", **info}
        objects = {"a": entry(), "b": entry(2000, "bob", 0.5)}
        objects["a"]["labels"] = {"final": {"ext": ".nii.gz", "info": said}}
        (tmp_path / "datastore_v2.json").write_text(json.dumps({"objects": objects}))
        write_overview(tmp_path, tmp_path / "model", tmp_path / "report.html", 1000)
        assert ">b</td>" in (tmp_path / "report.html").read_text()


def test_labels_of_nobody_in_particular_are_in_the_line_of_all_alone(studies):
    record = studies / "datastore_v2.json"
    record.write_text(record.read_text().replace("ann", "user-xyz"))
    assert list(labels_over_time(read_records(studies))) == ["all (3)"]


def test_the_learning_curve_begins_at_what_was_there_before(model_dir):
    versions = Versions(model_dir)
    series = learning_curve([versions.read(name) for name in versions.names()])
    assert series == {
        "mean": [(0.0, 0.5), (2.0, 0.6), (5.0, 0.7)],
        "box": [(0.0, 0.8), (2.0, 0.9), (5.0, 0.9)],
    }
