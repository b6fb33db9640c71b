"""A folder whose files come and go, and what its datastore says of them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monailabel.config import settings

from lib.datastores.local import LocalFolder, image_path, open_folder
from lib.images.reading import read_image
from sample_study.dicom import write_multiframe_ultrasound
from tests.support.slides import write_dicom_slide

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


def test_every_file_that_can_be_opened_is_listed_under_its_whole_name(
    store: LocalFolder, folder: Path, label: str
) -> None:
    names = {
        "volume.mha": "volume",
        "UPPER.NII.GZ": "UPPER",
        "mr.nii.gz_copy.nii.gz": "mr.nii.gz_copy",
        "x.png.copy.png": "x.png.copy",
        "b.tif_mask.TIF": "b.tif_mask",
        "a b.c.nii.gz": "a b.c",
        "Müller.nrrd": "Müller",
        "slide.svs": "slide",
        "alone_seg.nii.gz": "alone_seg",
    }
    others = [".ct.nii.gz-x1", "._ct.nii.gz", "notes.txt", "slice.dcm", "raw.bin", "a.mhd", "alone.seg.nrrd"]
    for name in [*names, *others]:
        (folder / name).write_bytes(b"another")
    store.refresh()
    assert sorted(store.list_images()) == sorted(["ct", *names.values()])
    for name, image_id in names.items():
        assert image_path(store, image_id) == folder / name
        store.save_label(image_id, label, "final", TOLD)
        assert Path(store.get_label_uri(image_id, "final")).read_bytes() == b"a label"
    again = open_folder(str(folder))
    assert sorted(again.list_images()) == sorted(["ct", *names.values()])
    for image_id in names.values():
        assert again.get_label_info(image_id, "final")["label_info"] == TOLD["label_info"]


OUTLINES = (
    "<ASAP_Annotations><Annotations><Annotation Name='a' Type='Polygon' PartOfGroup='cell'><Coordinates>"
    + "".join(
        f"<Coordinate Order='{n}' X='{x}' Y='{y}'/>" for n, (x, y) in enumerate([(1, 1), (9, 1), (9, 9)])
    )
    + "</Coordinates></Annotation></Annotations></ASAP_Annotations>"
)
FORMATS = [
    "nii", "nii.gz", "nrrd", "seg.nrrd", "mha", "mhd", "png", "bmp", "tif", "tiff",
    "jpg", "jpeg", "xml", "dcm",
]  # fmt: skip


@pytest.mark.parametrize("extension", ["nii.gz", "seg.nrrd", "xml", "others"])
def test_a_label_is_found_in_every_place_where_people_put_it(
    store: LocalFolder, folder: Path, caplog: pytest.LogCaptureFixture, extension: str
) -> None:
    others = [*FORMATS, "NII.GZ", "Seg.Nrrd"]
    for one in others if extension == "others" else [extension]:
        check_places(store, folder, one)
    assert "not used" not in caplog.text


def check_places(store: LocalFolder, folder: Path, extension: str) -> None:
    """Puts a label of a type in one place after the other."""
    places = ["labels/final/ct.{}", "labels/final/ct_seg.{}", "ct_seg.{}", "ct-label.{}", "ct_label.{}"]
    places += [
        "ct_mask.{}",
        "ct-segmentation.{}",
        "ct.label.{}",
        "ct labels.{}",
        "ct_seg.label.{}",
        "CT_GT.{}",
    ]
    if extension in ("seg.nrrd", "xml"):
        places.append("ct.{}")
    (folder / "CT.png").write_bytes(b"an image")
    for place in places:
        image = "CT" if place.startswith("CT") else "ct"
        file = folder / place.format(extension)
        file.write_text(OUTLINES)
        store.refresh()
        assert sorted(store.list_images()) == ["CT", "ct"], place
        assert store.get_labeled_images() == [image], place
        assert Path(store.get_label_uri(image, "final")) == file
        assert [pair["label"] for pair in store.datalist()] == [str(file)]
        assert store.datalist(full_path=False)[0]["label"] == place.format(extension)
        file.unlink()
        store.refresh()
        assert store.get_labeled_images() == []


def test_a_label_that_is_saved_does_not_touch_the_one_beside_the_image(
    store: LocalFolder, folder: Path, label: str
) -> None:
    beside = folder / "ct_seg.nii.gz"
    beside.write_bytes(b"drawn elsewhere")
    store.refresh()
    store.update_label_info("ct", "final", TOLD)
    assert open_folder(str(folder)).get_label_info("ct", "final")["label_info"] == TOLD["label_info"]
    store.save_label("ct", label, "final", {})
    assert Path(store.get_label_uri("ct", "final")) == folder / "labels" / "final" / "ct.nii.gz"
    assert beside.read_bytes() == b"drawn elsewhere"
    store.remove_label("ct", "final")
    assert Path(store.get_label_uri("ct", "final")) == beside
    store.remove_label("ct", "final")
    assert store.get_labeled_images() == []
    assert not beside.exists()


def test_the_log_says_why_a_label_is_not_used(
    store: LocalFolder, folder: Path, label: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.save_label("ct", label, "final", {})
    reasons = {
        "labels/final/other.nii.gz": "no image has its name",
        "labels/final/ct.mat": "not a type of label",
        "labels/final/ct.nrrd": "ct has the label ct.nii.gz",
        "ct_mask.png": "ct has the label ct.nii.gz",
        "lost.seg.nrrd": "no image has its name",
        "ct.xml": "it has no <Annotation> with an area",
    }
    for name in reasons:
        (folder / name).write_text("<empty/>")
    for _ in range(2):
        store.refresh()
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for name, reason in reasons.items():
        shown = name.removeprefix("labels/")
        (message,) = [text for text in messages if text.startswith(f"{shown!r} is not used: ")]
        assert reason in message


def test_an_image_on_which_labels_were_drawn_stays_one_whatever_its_name(
    store: LocalFolder, folder: Path, label: str
) -> None:
    (folder / "x_mask.png").write_bytes(b"an image")
    store.refresh()
    store.save_label("x_mask", label, "final", {})
    (folder / "x.png").write_bytes(b"an image")
    store.refresh()
    assert sorted(store.list_images()) == ["ct", "x", "x_mask"]
    assert store.get_labeled_images() == ["x_mask"]


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
        "'M\\udcfcller.nii.gz' is not used: its name is not UTF-8; rename it"
    ]


@pytest.mark.parametrize(
    ("away", "meanwhile"),
    [
        ("ct.nii.gz", "nothing"),
        ("labels/final/ct.nii.gz", "another process"),
        ("both", "another process"),
        ("both", "a restart"),
    ],
)
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
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert "'scan.jpg' is not used: image scan.mha has the same name; rename one of them" in warnings
    assert any(warning.startswith("'slide.xml' is not used: slide.xml is no XML") for warning in warnings)
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


def test_each_dicom_clip_in_a_folder_is_an_image_and_slices_and_segmentations_are_none(
    store: LocalFolder, folder: Path, tmp_path: Path, label: str
) -> None:
    clips = [
        write_multiframe_ultrasound(tmp_path / name, np.full((3, 20, 30), level, np.uint8)).files[0]
        for name, level in (("a", 60), ("b", 120))
    ]
    for name, file in zip(("a.dcm", "b.DCM"), clips, strict=True):
        shutil.copy(file, folder / name)
    header = pydicom.dcmread(clips[0])
    header.NumberOfFrames, header.PixelData = 1, header.PixelData[:600]
    header.save_as(folder / "slice.dcm")
    header = pydicom.dcmread(clips[0])
    header.Modality = "SEG"
    header.save_as(folder / "segments.dcm")
    store.refresh()
    assert set(store.list_images()) == {"ct", "a", "b"}
    for name, level in (("a", 60), ("b", 120)):
        assert (read_image(image_path(store, name), 10**9).array == level).all()
        store.save_label(name, label, "final", TOLD)
    store.refresh()
    assert set(store.get_labeled_images()) == {"a", "b"}


def test_a_folder_with_a_dicom_whole_slide_is_one_image(
    store: LocalFolder, folder: Path, label: str, tmp_path: Path
) -> None:
    slide, series = folder / "biopsy", folder / "series"
    slide.mkdir()
    series.mkdir()
    pixels = np.zeros((200, 300, 3), np.uint8)
    write_dicom_slide(slide / "a_small.dcm", pixels[::2, ::2], mpp=0.5)
    write_dicom_slide(slide / "b_large.dcm", pixels)
    (series / "slice1.dcm").write_bytes(b"no whole slide")
    store.refresh()
    assert sorted(store.list_images()) == ["biopsy", "ct"]
    assert store.get_image_uri("biopsy") == str((slide / "b_large.dcm").resolve())
    store.save_label("biopsy", label, "final", {})
    store.refresh()
    assert store.get_label_uri("biopsy", "final").endswith("labels/final/biopsy.nii.gz")
    shutil.rmtree(slide)
    store.refresh()
    assert store.list_images() == ["ct"]


def test_a_name_may_be_percent_encoded(store: LocalFolder, folder: Path, label: str) -> None:
    (folder / "My Slide.svs").write_bytes(b"a slide")
    (folder / "50%20off.svs").write_bytes(b"a slide")
    store.refresh()
    assert store.get_image_uri("My%20Slide") == store.get_image_uri("My Slide")
    assert store.get_image_uri("50%20off").endswith("50%20off.svs")
    assert store.get_image_uri("Other%20Slide") == ""
    assert store.save_label("My%20Slide", label, "final", {}) == "My Slide"
