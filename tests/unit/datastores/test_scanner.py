"""A folder whose files come and go, and what its datastore says of them."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

import pytest
from monailabel.config import settings

from lib.datastores.local import LocalFolder, open_folder

TOLD = {"label_info": [{"name": "spleen", "idx": 1}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "ct.nii.gz").write_bytes(b"an image")
    return folder


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> LocalFolder:
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    return open_folder(str(folder))


@pytest.fixture
def label(tmp_path: Path) -> str:
    path = tmp_path / "sent.nii.gz"
    path.write_bytes(b"a label")
    return str(path)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("volume.mha", "volume"),
        ("UPPER.NII.GZ", "UPPER"),
        ("mr.nii.gz_copy.nii.gz", "mr.nii.gz_copy"),
        ("x.png.copy.png", "x.png.copy"),
        ("b.tif_mask.TIF", "b.tif_mask"),
        ("a b.c.nii.gz", "a b.c"),
        ("Müller.nrrd", "Müller"),
        ("slide.svs", "slide"),
        ("s.seg.nrrd", "s.seg"),
    ],
)
def test_every_file_that_can_be_opened_is_listed_under_its_whole_name(
    store: LocalFolder, folder: Path, label: str, name: str, image_id: str
) -> None:
    (folder / name).write_bytes(b"another")
    store.refresh()
    assert sorted(store.list_images()) == sorted(["ct", image_id])
    assert Path(store.get_image_uri(image_id)) == folder / name
    store.save_label(image_id, label, "final", TOLD)
    assert Path(store.get_label_uri(image_id, "final")).read_bytes() == b"a label"
    again = open_folder(str(folder))
    assert sorted(again.list_images()) == sorted(["ct", image_id])
    assert again.get_label_info(image_id, "final")["label_info"] == TOLD["label_info"]


@pytest.mark.parametrize(
    "name", [".ct.nii.gz-x1", "._ct.nii.gz", "notes.txt", "slice.dcm", "raw.bin", "a.mhd"]
)
def test_other_files_are_not(store: LocalFolder, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"no image")
    store.refresh()
    assert store.list_images() == ["ct"]


@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
def test_a_name_that_nobody_could_ask_for_is_not_listed_and_said_once(
    store: LocalFolder, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # As a ZIP of an old Windows names it.
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/M\xfcller.nii.gz")).write_bytes(b"an image")
    except OSError:
        pytest.skip("this disk has names in UTF-8 alone")
    with caplog.at_level(logging.WARNING):
        store.refresh()
        store.refresh()
    assert store.list_images() == ["ct"]
    assert json.dumps(store.json(), ensure_ascii=False).encode()
    assert [record.message for record in caplog.records if "UTF-8" in record.message] == [
        "'M\\udcfcller.nii.gz' is not listed: its name is not UTF-8; rename it"
    ]


@pytest.mark.parametrize("away", ["ct.nii.gz", "labels/final/ct.nii.gz", "both"])
@pytest.mark.parametrize("meanwhile", ["nothing", "another process", "a restart"])
def test_a_file_that_comes_back_is_the_one_that_went(
    store: LocalFolder, folder: Path, label: str, away: str, meanwhile: str
) -> None:
    other = open_folder(str(folder))
    store.save_label("ct", label, "final", TOLD)
    store.update_image_info("ct", {"station": 7})
    names = ["ct.nii.gz", "labels/final/ct.nii.gz"] if away == "both" else [away]
    kept = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    first, second = {
        "nothing": lambda: (store, store),
        "another process": lambda: (other, store),
        "a restart": lambda: (store, open_folder(str(folder))),
    }[meanwhile]()
    first.refresh()
    assert first.get_labels_by_image_id("ct") == {}
    second.refresh()
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    second.refresh()
    assert second.get_label_info("ct", "final")["label_info"] == TOLD["label_info"]
    assert second.get_image_info("ct")["station"] == 7
    first.refresh()
    assert first.get_label_info("ct", "final")["label_info"] == TOLD["label_info"]
    assert "away" not in second.json()


@pytest.mark.parametrize("removed", ["image", "label"])
def test_what_was_removed_on_purpose_is_forgotten(
    store: LocalFolder, folder: Path, label: str, removed: str
) -> None:
    store.save_label("ct", label, "final", TOLD)
    store.update_image_info("ct", {"station": 7})
    if removed == "image":
        store.remove_image("ct")
        assert store.list_images() == []
        (folder / "ct.nii.gz").write_bytes(b"another")
    else:
        store.remove_label("ct", "final")
        assert store.get_labels_by_image_id("ct") == {}
    (folder / "labels/final/ct.nii.gz").write_bytes(b"another")
    store.refresh()
    assert store.get_labels_by_image_id("ct") == {"final": "ct"}
    assert "label_info" not in store.get_label_info("ct", "final")
    assert ("station" in store.get_image_info("ct")) == (removed == "label")


def test_what_nobody_said_anything_of_leaves_no_trace(store: LocalFolder, folder: Path) -> None:
    (folder / "ct.nii.gz").unlink()
    store.refresh()
    assert json.loads((folder / "datastore_v2.json").read_text())["away"] == {}


def test_whoever_reads_meanwhile_finds_all_that_stays(store: LocalFolder, folder: Path, label: str) -> None:
    for number in range(200):
        (folder / f"case{number}.nii.gz").write_bytes(b"an image")
    store.refresh()
    ended = threading.Event()
    short: list[int] = []

    def read() -> None:
        while not ended.is_set():
            short.extend(
                count for count in (len(store.list_images()), store.status()["total"]) if count < 201
            )
            store.datalist()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(20):
            (folder / f"new{number}.nii.gz").write_bytes(b"an image")
            store.refresh()
            store.save_label(f"new{number}", label, "final", TOLD)
    finally:
        ended.set()
        reader.join()
    assert short == []
    assert len(store.datalist()) == 20


def test_of_two_images_with_one_name_the_volume_counts_whenever_it_came(
    folder: Path, store: LocalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("scan.jpg", "scan.mha", "slide.xml", "slide.tif"):
        (folder / name).write_bytes(b"an image")
    caplog.set_level(logging.WARNING)
    store.refresh()
    store.refresh()
    assert sorted(store.list_images()) == ["ct", "scan", "slide"]
    assert Path(store.get_image_uri("scan")).name == "scan.mha"
    assert Path(store.get_image_uri("slide")).name == "slide.tif"
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == "'scan.jpg' is not listed: the image scan.mha has its name; rename one of them"
    # What is there stays: labels were drawn on it.
    (folder / "ct.png").write_bytes(b"an image")
    store.refresh()
    assert Path(store.get_image_uri("ct")).name == "ct.nii.gz"


def test_outlines_that_a_former_record_took_for_an_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    record = {"name": "a", "description": "b", "objects": {"slide": {"image": {"ext": ".xml", "info": {}}}}}
    (folder / "datastore_v2.json").write_text(json.dumps(record))
    for name in ("slide.xml", "slide.svs"):
        (folder / name).write_bytes(b"an image")
    store = open_folder(str(folder))
    assert Path(store.get_image_uri("slide")).name == "slide.svs"


def test_an_own_list_of_types_counts_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_FILE_EXT", ["ct_*.nii.gz"])
    for name in ("ct_1.nii.gz", "CT_2.NII.GZ", "ct_1_preview.png", "mr.nii.gz"):
        (folder / name).write_bytes(b"an image")
    assert sorted(open_folder(str(folder)).list_images()) == ["CT_2", "ct_1"]


def test_a_label_that_was_drawn_anew_while_it_was_away_is_a_new_one(
    folder: Path, store: LocalFolder, label: str
) -> None:
    store.save_label("ct", label, "final", TOLD)
    saved = store.get_label_info("ct", "final")["ts"]
    file = folder / "labels" / "final" / "ct.nii.gz"
    file.unlink()
    store.refresh()
    file.write_bytes(b"drawn by another program")
    os.utime(file, (saved + 100, saved + 100))
    store.refresh()
    assert store.get_label_info("ct", "final")["ts"] == saved + 100
