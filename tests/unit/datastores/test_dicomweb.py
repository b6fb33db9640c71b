"""Labels of a DICOMweb store: there and back, by name, and the one that came last."""

import io
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore

from lib.datastores.dicomweb import DicomWebStore, open_session, open_store
from lib.datastores.label_entries import label_entry
from lib.errors import BusyError, ConflictError, ImageError, ImageNotFoundError, LabelError, ReadOnlyError
from lib.images.reading import read_image
from lib.labels.reading import read_labels
from lib.trainers.task import labelled_images
from sample_study.dicom import write_multiframe_ultrasound, write_series
from tests.unit.datastores.conftest import AFFINE, LABEL, MANY, SHAPE

INFO = {"label_info": [{"name": "liver", "idx": 1, "color": [9, 8, 7]}, {"name": "spleen", "idx": 2}]}


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def names(datastore, uid):
    return {item["idx"]: item["name"] for item in datastore.get_label_info(uid, "final")["label_info"]}


def test_a_final_label_is_in_the_store_and_counts_at_once(datastore, pacs, label_file):
    uid = pacs.ct.series_uid
    assert datastore.save_label(uid, str(label_file), "final", dict(INFO)) == uid
    assert datastore.get_labeled_images() == [uid]
    (header,) = pacs.store.select(Modality="SEG")
    assert header.StudyInstanceUID == pacs.ct.study_uid
    assert [item.SegmentLabel for item in header.SegmentSequence] == ["liver", "spleen"]
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(uid, "final")), LABEL)
    info = datastore.get_label_info(uid, "final")
    assert info["label_info"] == INFO["label_info"]
    assert (info["SeriesInstanceUID"], info["SOPInstanceUID"]) == (
        header.SeriesInstanceUID,
        header.SOPInstanceUID,
    )
    # It was not downloaded again.
    assert not any("/instances/" in request for request in pacs.store.requests)


@pytest.mark.parametrize("tag", ["final", "draft"])
def test_a_label_replaces_the_version_that_it_was_made_from_alone(datastore, pacs, label_file, tag):
    uid = pacs.ct.series_uid
    first = datastore.replace_label(uid, label_file, tag, dict(INFO), "")
    second = datastore.replace_label(uid, label_file, tag, dict(INFO), first.version)
    assert datastore.label_version(uid, tag) == second.version != first.version
    with pytest.raises(ConflictError, match="after yours was loaded"):
        datastore.replace_label(uid, label_file, tag, dict(INFO), first.version)


def test_what_another_program_has_just_stored_is_no_version_of_ours(datastore, pacs, label_file):
    uid = pacs.ct.series_uid
    first = datastore.replace_label(uid, label_file, "final", dict(INFO), "")
    assert datastore.label_version(uid, "final") == first.version
    header = pacs.draw(LABEL, {1: "kidney", 2: "spleen"})
    with pytest.raises(ConflictError):
        datastore.replace_label(uid, label_file, "final", dict(INFO), first.version)
    assert len(pacs.store.select(Modality="SEG")) == 2
    datastore.replace_label(uid, label_file, "final", dict(INFO), header.SOPInstanceUID)
    assert len(pacs.store.select(Modality="SEG")) == 3


def test_any_clients_file_is_a_label(datastore, pacs, tmp_path):
    # As 3D Slicer exports it: on another grid, and its params kept whole.
    flipped = AFFINE @ np.array([[-1.0, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(LABEL[::-1] * 4, flipped), tmp_path / "label.nii.gz")
    params = {"params": {"label_info": [{"name": "liver", "idx": 4}, {"name": "spleen", "idx": 8}]}}
    datastore.save_label(pacs.ct.series_uid, str(tmp_path / "label.nii.gz"), "final", params)
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(pacs.ct.series_uid, "final")), LABEL * 4)
    names = {
        item["idx"]: item["name"]
        for item in datastore.get_label_info(pacs.ct.series_uid, "final")["label_info"]
    }
    assert names == {4: "liver", 8: "spleen"}


def test_what_others_stored_comes_back_by_name_on_the_images_grid(datastore, pacs):
    pacs.draw(LABEL, {1: "liver", 2: "spleen"})
    uid = pacs.ct.series_uid
    assert [item["name"] for item in datastore.get_label_info(uid, "final")["label_info"]] == [
        "liver",
        "spleen",
    ]
    (case,) = labelled_images(datastore)
    image = read_image(case.image, MANY)
    found = read_labels(case.label, image, case.label_info)
    np.testing.assert_array_equal(found.array, LABEL)
    assert (case.id, found.names) == (uid, {1: "liver", 2: "spleen"})
    entry = label_entry(datastore, uid)
    assert (entry.path, [item["name"] for item in entry.label_info]) == (case.label, ["liver", "spleen"])


def test_the_series_of_a_segmentation_names_its_label_too(datastore, pacs):
    header = pacs.draw(LABEL, {1: "a", 2: "b"})
    datastore.list_images()
    path = datastore.get_label_uri(header.SeriesInstanceUID, "final")
    assert path == datastore.get_label_uri(pacs.ct.series_uid, "final")


def test_the_one_that_came_last_is_the_label(datastore, pacs, label_file):
    uid = pacs.ct.series_uid
    datastore.save_label(uid, str(label_file), "final", dict(INFO))
    datastore.list_images()
    pacs.draw(np.roll(LABEL, 1, axis=0), {1: "kidney", 2: "spleen"})
    datastore.forget()
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(uid, "final")), np.roll(LABEL, 1, axis=0))
    assert names(datastore, uid) == {1: "kidney", 2: "spleen"}
    # It lies here now as well, and is not fetched twice.
    fetched = sum("/instances/" in request for request in pacs.store.requests)
    datastore.get_label_uri(uid, "final")
    assert sum("/instances/" in request for request in pacs.store.requests) == fetched
    datastore.save_label(uid, str(label_file), "final", dict(INFO))
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(uid, "final")), LABEL)


def test_a_label_that_left_the_store_is_none(datastore, pacs):
    header = pacs.draw(LABEL, {1: "a", 2: "b"})
    assert datastore.get_label_uri(pacs.ct.series_uid, "final")
    pacs.store.remove(header.SeriesInstanceUID)
    datastore.forget()
    assert datastore.get_label_by_image_id(pacs.ct.series_uid, "final") == ""
    assert datastore.get_label_uri(pacs.ct.series_uid, "final") == ""
    assert (datastore.datalist(), datastore.status()["completed"]) == ([], 0)


def test_a_segmentation_of_another_place_leaves_the_one_before(datastore, pacs, tmp_path, caplog):
    pacs.draw(LABEL, {1: "a", 2: "b"})
    datastore.list_images()
    moved = AFFINE.copy()
    moved[2, 3] += 900
    other = write_series(tmp_path / "other", np.zeros(SHAPE, np.int16), moved)
    pacs.draw(LABEL, {1: "far", 2: "away"}, other)
    dataset = pydicom.dcmread(pacs.folder / "drawn.dcm")
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = pacs.ct.series_uid
    pacs.store.remove(dataset.SeriesInstanceUID)
    dataset.save_as(pacs.folder / "drawn.dcm")
    pacs.store.add((pacs.folder / "drawn.dcm").read_bytes())
    datastore.forget()
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(pacs.ct.series_uid, "final")), LABEL)
    assert "is no label of" in caplog.text
    assert "belongs to another series" in caplog.text
    assert names(datastore, pacs.ct.series_uid) == {1: "a", 2: "b"}


def without_slice(pacs, number):
    """Takes a slice of the CT out of the store; what puts it back."""
    slices = [pacs.store.content(one) for one in pacs.store.select(SeriesInstanceUID=pacs.ct.series_uid)]
    pacs.store.remove(pacs.ct.series_uid)
    for content in slices[:number] + slices[number + 1 :]:
        pacs.store.add(content)
    return lambda: pacs.store.add(slices[number])


def test_a_label_that_came_before_its_images_last_slice_is_read_when_that_has_come(datastore, pacs, caplog):
    uid = pacs.ct.series_uid
    pacs.draw(LABEL, {1: "a", 2: "b"})
    put_back = without_slice(pacs, 2)
    for _ in range(2):
        assert datastore.get_label_uri(uid, "final") == ""
    assert caplog.text.count("is no label of") == 1
    put_back()
    datastore.forget()
    datastore.list_images()
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(uid, "final")), LABEL)
    assert datastore.get_labels_by_image_id(uid) == {"final": uid}


def test_a_label_grows_with_its_image(datastore, pacs):
    uid = pacs.ct.series_uid
    pacs.draw(LABEL, {1: "a", 2: "b"})
    put_back = without_slice(pacs, SHAPE[2] - 1)
    assert voxels(datastore.get_label_uri(uid, "final")).shape == (12, 10, 5)
    put_back()
    datastore.forget()
    datastore.list_images()
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(uid, "final")), LABEL)


def test_a_label_in_the_cache_needs_no_image_to_be_opened(datastore, pacs, label_file, monkeypatch):
    uid = pacs.ct.series_uid
    datastore.save_label(uid, str(label_file), "final", dict(INFO))
    opened = []
    monkeypatch.setattr("lib.datastores.dicomweb_images.read_image", lambda path, _: opened.append(path))
    assert Path(datastore.get_label_uri(uid, "final")).is_file()
    assert datastore.datalist()
    assert opened == []


def test_other_tags_stay_here(datastore, pacs, label_file, tmp_path):
    uid = pacs.ct.series_uid
    datastore.save_label(uid, str(label_file), "original", {"model": "m"})
    assert pacs.store.select(Modality="SEG") == []
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(uid, "original")), LABEL)
    assert datastore.get_labels_by_image_id(uid) == {"original": uid}
    assert datastore.status()["label_tags"] == {"original": 1}
    # Of any client's grid and type, they lie on the image's.
    turned = AFFINE @ np.array([[-1.0, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(LABEL[::-1], turned), tmp_path / "label.nii")
    datastore.save_label(uid, str(tmp_path / "label.nii"), "review", {})
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(uid, "review")), LABEL)
    datastore.remove_label(uid, "original")
    assert not Path(LocalDatastore.get_label_uri(datastore, uid, "original") or "none").is_file()


def test_a_loop_of_frames_there_and_back(datastore, pacs, tmp_path):
    loop = write_multiframe_ultrasound(tmp_path / "us", np.zeros((5, 20, 30, 3), np.uint8))
    pacs.store.store(tmp_path / "us")
    label = np.zeros((30, 20, 5), np.uint8)
    label[3:9, 4:8, 1:4] = 1
    (tmp_path / "loop.bin").write_bytes(label.tobytes(order="F"))
    datastore.save_label(loop.series_uid, str(tmp_path / "loop.bin"), "final", {})
    (header,) = pacs.store.select(Modality="SEG")
    # Another process, or another day: from the store alone.
    Path(datastore.get_label_uri(loop.series_uid, "final")).unlink()
    np.testing.assert_array_equal(voxels(datastore.get_label_uri(loop.series_uid, "final")), label)
    assert pydicom.dcmread(io.BytesIO(pacs.store.content(header))).NumberOfFrames == 3


def test_each_of_several_clips_in_a_series_is_an_image(datastore, pacs, tmp_path):
    """An echo examination: the files have ids of their own, and a label belongs to one of them."""
    clips = []
    for number, name in enumerate("ab", 1):
        pixels = np.full((3, 20, 30), 60 * number, np.uint8)
        dataset = pydicom.dcmread(write_multiframe_ultrasound(tmp_path / name, pixels).files[0])
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.30", "1.2.31"
        dataset.InstanceNumber = number
        dataset.save_as(tmp_path / f"{name}.dcm")
        pacs.store.add((tmp_path / f"{name}.dcm").read_bytes())
        clips.append(str(dataset.SOPInstanceUID))
    assert datastore.list_images() == [pacs.ct.series_uid, pacs.mr.series_uid, *clips]
    assert datastore.get_image_info(clips[1])["SeriesInstanceUID"] == "1.2.31"
    for number, clip in enumerate(clips, 1):
        assert (read_image(datastore.get_image_uri(clip), MANY).array == 60 * number).all()
    with pytest.raises(
        ImageError, match=f"2 clips .*one file by its SOP Instance UID .{clips[0]}, {clips[1]}"
    ):
        read_image(datastore.get_image_uri("1.2.31"), MANY)
    label = np.zeros((30, 20, 3), np.uint8)
    label[4:9, 2:7, 1] = 1
    (tmp_path / "label.bin").write_bytes(label.tobytes(order="F"))
    datastore.save_label(clips[1], str(tmp_path / "label.bin"), "final", {"label_info": [{"name": "valve"}]})
    (drawn,) = pacs.store.select(Modality="SEG")
    (series,) = drawn.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.31"
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == [clips[1]]
    # Another process, and one whose filter leaves the series out.
    for filters in ({}, {"Modality": "CT"}):
        other = DicomWebStore(datastore._client, filters, tmp_path / f"cache {filters}", MANY)
        assert other.get_label_uri(clips[0], "final") == ""
        for label_id in (clips[1], str(drawn.SeriesInstanceUID)):
            np.testing.assert_array_equal(voxels(other.get_label_uri(label_id, "final")), label)
    assert datastore.get_labeled_images() == [clips[1]]


def test_a_label_as_a_file_that_nobody_stores(datastore, pacs, label_file):
    path = datastore.as_dicom_seg(pacs.ct.series_uid, label_file, INFO["label_info"])
    assert [item.SegmentLabel for item in pydicom.dcmread(path).SegmentSequence] == ["liver", "spleen"]
    path.unlink()
    assert pacs.store.select(Modality="SEG") == []


def test_what_cannot_be_saved_or_removed(datastore, pacs, label_file):
    with pytest.raises(ImageNotFoundError, match="no image 'undefined'"):
        datastore.save_label("undefined", str(label_file), "final", {})
    pacs.store.refuses = True
    with pytest.raises(BusyError, match="does not answer as it should"):
        datastore.save_label(pacs.ct.series_uid, str(label_file), "final", {})
    assert datastore.status()["completed"] == 0
    with pytest.raises(LabelError, match="remove it there"):
        datastore.remove_label(pacs.ct.series_uid, "final")


def test_labels_are_known_while_the_store_is_down(datastore, pacs):
    pacs.draw(LABEL, {1: "a", 2: "b"})
    path = datastore.get_label_uri(pacs.ct.series_uid, "final")
    pacs.store.stop()
    datastore.forget()
    assert datastore.get_label_uri(pacs.ct.series_uid, "final") == path
    assert names(datastore, pacs.ct.series_uid) == {1: "a", 2: "b"}
    with pytest.raises(BusyError):
        datastore.datalist()


def test_the_record_shows_the_labels_of_the_store(datastore, pacs):
    header = pacs.draw(LABEL, {1: "a", 2: "b"})
    labels = datastore.json()["objects"][pacs.ct.series_uid]["labels"]
    assert [item["name"] for item in labels["final"]["info"]["label_info"]] == ["a", "b"]
    assert datastore.get_label_uri(pacs.ct.series_uid, "final")
    pacs.store.remove(header.SeriesInstanceUID)
    datastore.forget()
    assert datastore.json()["objects"][pacs.ct.series_uid]["labels"] == {}


def test_short_paths(datastore, pacs):
    pacs.draw(LABEL, {1: "a", 2: "b"})
    name = f"{pacs.ct.series_uid}.nii.gz"
    assert datastore.datalist(full_path=False) == [{"image": name, "label": f"labels/final/{name}"}]


def test_a_store_that_is_read_only_is_read(open_datastore, pacs, label_file, monkeypatch):
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_READ_ONLY", True)
    pacs.draw(LABEL, {1: "a", 2: "b"})
    datastore = open_datastore()
    assert read_image(datastore.get_image_uri(pacs.ct.series_uid), MANY).shape == SHAPE
    assert Path(datastore.get_label_uri(pacs.ct.series_uid, "final")).is_file()
    for tag in ("final", "original"):
        with pytest.raises(ReadOnlyError):
            datastore.save_label(pacs.ct.series_uid, str(label_file), tag, {})
    assert len(pacs.store.select(Modality="SEG")) == 1


FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"


@pytest.fixture
def configure(monkeypatch, tmp_path):
    """Function that sets settings as a user does; the cache lies in the test's folder."""
    monkeypatch.setattr(settings, "__pydantic_fields_set__", set())
    monkeypatch.setenv(FILTER, "as it was")
    monkeypatch.delenv(FILTER)
    monkeypatch.setattr(settings, FILTER, {"Modality": "CT"})
    settings.__pydantic_fields_set__.clear()

    def change(**values):
        for name, value in {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"), **values}.items():
            monkeypatch.setattr(settings, name, value)

    return change


@pytest.fixture
def opened(pacs):
    """Function that opens the store of the test."""
    return lambda: open_store(pacs.store.dicomweb_url, 1000)


def test_all_modalities_where_nobody_set_a_filter_also_in_processes_of_the_server(configure, opened, pacs):
    configure()
    assert set(opened().list_images()) == {pacs.ct.series_uid, pacs.mr.series_uid}
    # MONAI Label's processes read their settings from the environment.
    assert os.environ[FILTER] == "{}"


def test_the_filter_that_somebody_set(configure, opened, pacs):
    configure(**{FILTER: {"Modality": "MR"}})
    assert opened().list_images() == [pacs.mr.series_uid]
    assert FILTER not in os.environ


def test_wildcards_arrive_as_such(configure, opened, pacs):
    configure(**{FILTER: {"PatientID": "phan*"}})
    assert len(opened().list_images()) == 2
    assert any("PatientID=phan*&" in request for request in pacs.store.requests)


def test_downloads_go_where_the_settings_say(configure, opened, pacs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    configure()
    assert opened().get_image_uri(pacs.ct.series_uid).startswith(str(tmp_path / "cache"))
    assert not (tmp_path / "home").exists()
    configure(MONAI_LABEL_DICOMWEB_CACHE_PATH="", MONAI_LABEL_DATASTORE_CACHE_PATH=str(tmp_path / "other"))
    assert opened().get_image_uri(pacs.ct.series_uid).startswith(str(tmp_path / "other"))
    configure(MONAI_LABEL_DICOMWEB_CACHE_PATH="")
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_CACHE_PATH", "")
    home = tmp_path / "home" / ".cache" / "monailabel" / "dicom"
    assert opened().get_image_uri(pacs.ct.series_uid).startswith(str(home))


def test_a_store_that_is_down_is_found_out_at_once(configure, opened, pacs):
    configure()
    pacs.store.stop()
    start = time.monotonic()
    with pytest.raises(BusyError):
        opened().list_images()
    assert time.monotonic() - start < 5


def test_user_and_password(configure):
    configure(MONAI_LABEL_DICOMWEB_USERNAME="me", MONAI_LABEL_DICOMWEB_PASSWORD="secret")
    assert open_session("http://store/dicom-web").auth == ("me", "secret")


def test_no_request_waits_for_ever(configure, pacs, monkeypatch):
    configure()
    limits = []
    session = open_session(pacs.store.dicomweb_url)
    adapter = session.get_adapter(pacs.store.dicomweb_url)
    send = type(adapter).__mro__[1].send
    monkeypatch.setattr(
        type(adapter).__mro__[1],
        "send",
        lambda self, request, *args, **options: (
            limits.append(options["timeout"]) or send(self, request, *args, **options)
        ),
    )
    assert session.get(f"{pacs.store.dicomweb_url}/series").ok
    ((connect, silent),) = limits
    assert 0 < connect <= 10
    assert 0 < silent <= 600


class Listener:
    """An HTTP server that redirects to an address, or answers 200."""

    def __init__(self, target=""):
        listener = self
        self.credentials = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                listener.credentials.append(self.headers.get("Authorization"))
                moved = target and not self.path.endswith("/moved")
                self.send_response(302 if moved else 200)
                if moved:
                    self.send_header("Location", target)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_the_password_goes_to_the_store_alone(configure):
    configure(MONAI_LABEL_DICOMWEB_USERNAME="me", MONAI_LABEL_DICOMWEB_PASSWORD="secret")
    other = Listener()
    elsewhere, within = Listener(f"{other.url}/studies"), Listener("/dicom-web/moved")
    try:
        with pytest.raises(requests.RequestException, match="redirects to another host"):
            open_session(elsewhere.url).get(f"{elsewhere.url}/studies")
        with pytest.raises(BusyError, match="another host"):
            open_store(elsewhere.url, 10).list_images()
        assert open_session(within.url).get(f"{within.url}/studies").url.endswith("/dicom-web/moved")
    finally:
        for listener in (other, elsewhere, within):
            listener.server.shutdown()
            listener.server.server_close()
    assert other.credentials == []
    assert None not in elsewhere.credentials + within.credentials
