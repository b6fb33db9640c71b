from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib.errors import ImageNotFoundError
from lib.scoring.fingerprints import LabelEntry, image_path, label_entry, labelled, stamp, weights_key
from tests.unit.scoring.conftest import LABEL_INFO, save_label


def test_a_file_that_was_written_again_has_another_stamp(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    first = stamp(path)
    assert stamp(path) == first
    os.utime(path, (1, 1))
    assert stamp(path) != first
    path.write_text("longer")
    os.utime(path, (1, 1))
    assert stamp(path) not in (first, "1000000000:3")


def test_a_folder_changes_with_its_files(tmp_path):
    (tmp_path / "1.dcm").write_text("one")
    first = stamp(tmp_path)
    (tmp_path / "1.dcm").write_text("other")
    assert stamp(tmp_path) != first


def test_what_is_gone_is_named(tmp_path, datastore):
    with pytest.raises(ImageNotFoundError, match="x is gone"):
        stamp(tmp_path / "x")
    with pytest.raises(ImageNotFoundError, match="x is not in the datastore"):
        image_path(datastore, "x")


def test_a_download_that_fails_is_an_image_that_is_not_there():
    class Remote:
        def get_image_uri(self, image_id):
            raise ConnectionError("no server")

    with pytest.raises(ImageNotFoundError, match="no server"):
        image_path(Remote(), "1.2.3")


def test_labels_are_found_by_image_and_tag(datastore, tmp_path):
    save_label(datastore, tmp_path, 1)
    save_label(datastore, tmp_path, 2, "original")
    assert [image for image, _ in labelled(datastore)] == ["case1"]
    entry = label_entry(datastore, "case1")
    assert entry.path.is_file()
    assert entry.label_info == LABEL_INFO
    assert label_entry(datastore, "case2") is None
    assert label_entry(datastore, "case2", "original").path.name == "case2.nii.gz"
    entry.path.unlink()
    assert label_entry(datastore, "case1") is None


@pytest.mark.parametrize(
    "info",
    [
        {"label_info": LABEL_INFO},
        {"params": {"label_info": LABEL_INFO}},
        {"label_info": [*LABEL_INFO, "odd"], "params": "odd"},
    ],
)
def test_names_of_values_are_found_wherever_the_client_put_them(info):
    assert LabelEntry(Path("x"), info).label_info == LABEL_INFO


@pytest.mark.parametrize("info", [{}, {"label_info": None}, {"params": {"label_info": []}}])
def test_a_client_may_send_no_names(info):
    assert LabelEntry(Path("x"), info).label_info == []


def test_the_key_of_weights_is_their_content_and_how_they_are_run(engines):
    key = weights_key(engines.weights(), engines.get())
    assert key.startswith("biosam2_mini ")
    assert engines.weights().sha256[:16] in key
    assert key.endswith("at 256 px float32")
