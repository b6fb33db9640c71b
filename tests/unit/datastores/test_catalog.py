"""What is known of a store, and how often it is asked."""

import threading
from datetime import datetime, timezone

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from lib.datastores.catalog import NO_PICTURES, StoreContents, StoredSegmentation, read_segmentation
from lib.errors import BusyError
from tests.unit.datastores.conftest import LABEL


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def contents(client, tmp_path, clock):
    return StoreContents(client, {}, tmp_path / "known.json", clock)


def test_series_with_what_viewers_show(contents, pacs):
    found = contents.now()
    assert set(found.images) == {pacs.ct.series_uid, pacs.mr.series_uid}
    image = found.images[pacs.mr.series_uid]
    assert (image.study_uid, image.instances) == (pacs.mr.study_uid, 6)
    assert {name: image.info[name] for name in ("Modality", "PatientID", "StudyDate")} == {
        "Modality": "MR",
        "PatientID": "phantom",
        "StudyDate": "20260102",
    }
    assert image.info["RetrieveURL"] == "UNK"


def test_whatever_holds_pictures_is_offered():
    for modality in ("CT", "MR", "US", "XA", "PT", "CR", "DX", "MG", "NM", "XC", "RF", "OT", "ES"):
        assert modality not in NO_PICTURES


def test_reports_and_plans_are_not_offered(contents, pacs):
    dataset = pydicom.dcmread(pacs.mr.files[0])
    for modality in ("SR", "RTSTRUCT", "SEG"):
        assert modality in NO_PICTURES
        dataset.Modality, dataset.SeriesInstanceUID = modality, "1.2.3.4"
        dataset.save_as(pacs.folder / "other.dcm")
        pacs.store.add((pacs.folder / "other.dcm").read_bytes())
        contents.forget()
        assert len(contents.now().images) == 2
        pacs.store.remove("1.2.3.4")


def test_the_users_filter_holds_and_labels_are_found_all_the_same(client, pacs, tmp_path):
    pacs.draw(LABEL, {1: "a", 2: "b"})
    contents = StoreContents(client, {"Modality": "CT"}, tmp_path / "known.json")
    found = contents.now()
    assert list(found.images) == list(found.labels) == [pacs.ct.series_uid]
    # Who names another series has a reason.
    assert contents.find(pacs.mr.series_uid).study_uid == pacs.mr.study_uid


def test_the_store_is_asked_once_in_a_few_seconds(contents, pacs, clock):
    for _ in range(5):
        contents.now()
    assert len(pacs.store.requests) == 1
    clock.now += 3.1
    contents.now()
    contents.forget()
    contents.now()
    assert len(pacs.store.requests) == 3


def test_a_slow_store_is_asked_less_often(contents, client, pacs, clock, monkeypatch):
    search = client.search_for_series

    def slow(**options):
        clock.now += 2.0
        return search(**options)

    monkeypatch.setattr(client, "search_for_series", slow)
    contents.now()
    clock.now += 19.0
    contents.now()
    assert len(pacs.store.requests) == 1
    clock.now += 1.1
    contents.now()
    assert len(pacs.store.requests) == 2


def test_a_header_is_asked_for_once_also_by_the_next_process(contents, client, pacs, tmp_path):
    pacs.draw(LABEL, {1: "liver", 2: "spleen"})
    (drawn,) = contents.now().labels[pacs.ct.series_uid]
    assert [item["name"] for item in drawn.label_info] == ["liver", "spleen"]
    contents.forget()
    contents.now()
    again = StoreContents(client, {}, tmp_path / "known.json").now()
    assert again.labels[pacs.ct.series_uid] == (drawn,)
    assert sum("metadata" in request for request in pacs.store.requests) == 1


def test_what_came_last_is_first_whatever_its_clock_says(contents, pacs, tmp_path):
    older = pacs.draw(LABEL, {1: "a", 2: "b"})
    first = contents.now().labels[pacs.ct.series_uid]
    assert [drawn.uid for drawn in first] == [older.SOPInstanceUID]
    pacs.draw(LABEL, {1: "a", 2: "b"})
    dataset = pydicom.dcmread(pacs.folder / "drawn.dcm")
    dataset.ContentDate, dataset.SOPInstanceUID = "19990101", "1.2.3.5"
    dataset.save_as(pacs.folder / "late.dcm")
    pacs.store.remove(dataset.SeriesInstanceUID)
    pacs.store.add((pacs.folder / "late.dcm").read_bytes())
    contents.forget()
    assert [drawn.uid for drawn in contents.now().labels[pacs.ct.series_uid]] == [
        "1.2.3.5",
        older.SOPInstanceUID,
    ]


def test_of_two_that_were_there_before_the_later_made_is_first(contents, pacs):
    uids = [pacs.draw(np.roll(LABEL, shift, 0), {1: "a", 2: "b"}).SOPInstanceUID for shift in (0, 1)]
    assert [drawn.uid for drawn in contents.now().labels[pacs.ct.series_uid]] == uids[::-1]


def test_a_segmentation_of_nothing_is_passed_over(contents, pacs):
    pacs.draw(LABEL, {1: "a", 2: "b"})
    dataset = pydicom.dcmread(pacs.folder / "drawn.dcm")
    del dataset.ReferencedSeriesSequence
    pacs.store.remove(dataset.SeriesInstanceUID)
    dataset.save_as(pacs.folder / "drawn.dcm")
    pacs.store.add((pacs.folder / "drawn.dcm").read_bytes())
    assert contents.now().labels == {}


@pytest.mark.parametrize("fault", ["gone", "odd", "no header"])
def test_a_segmentation_that_the_store_cannot_serve_is_passed_over(
    contents, client, pacs, monkeypatch, caplog, fault
):
    bad = pacs.draw(LABEL, {1: "a", 2: "b"}).SeriesInstanceUID
    good = pacs.draw(LABEL, {1: "a", 2: "b"}, pacs.mr)
    ask = client.retrieve_series_metadata

    def answer(study, uid):
        if uid == bad and fault == "gone":
            return ask(study, "1.2.3.4")
        found = ask(study, uid)
        if uid == bad and fault == "odd":
            found[0]["00620002"]["Value"][0]["00620004"] = {"vr": "US", "Value": ["one"]}
        return ["no header"] if uid == bad and fault == "no header" else found

    monkeypatch.setattr(client, "retrieve_series_metadata", answer)
    found = contents.now()
    assert [drawn.uid for drawn in found.labels[pacs.mr.series_uid]] == [good.SOPInstanceUID]
    assert (len(found.images), list(found.labels)) == (2, [pacs.mr.series_uid])
    contents.forget()
    contents.now()
    assert caplog.text.count(f"The segmentation {bad} cannot be read") == 1
    # It may have been repaired: nobody need start the server again.
    monkeypatch.undo()
    contents.forget()
    assert set(contents.now().labels) == {pacs.ct.series_uid, pacs.mr.series_uid}


def test_an_odd_number_that_nobody_wants_to_know_hides_no_series(contents, client, monkeypatch):
    search = client.search_for_series

    def odd(**options):
        return [{**item, "00200011": {"vr": "IS", "Value": ["one"]}} for item in search(**options)]

    monkeypatch.setattr(client, "search_for_series", odd)
    assert len(contents.now().images) == 2


def test_what_was_stored_during_a_listing_is_in_the_next(contents, client, pacs, monkeypatch):
    search = client.search_for_series
    asked, answered = threading.Event(), threading.Event()

    def late(**options):
        found = search(**options)
        asked.set()
        answered.wait(30)
        return found

    monkeypatch.setattr(client, "search_for_series", late)
    listing = threading.Thread(target=contents.now)
    listing.start()
    assert asked.wait(30)
    pacs.draw(LABEL, {1: "a", 2: "b"})
    contents.forget()
    answered.set()
    listing.join()
    assert list(contents.now().labels) == [pacs.ct.series_uid]


def test_pages_are_put_together(contents, pacs, monkeypatch):
    monkeypatch.setattr("lib.datastores.catalog._PAGE", 1)
    assert len(contents.now().images) == 2
    assert len(pacs.store.requests) == 3


def test_a_store_that_is_down_is_named(contents, pacs):
    found = contents.now()
    pacs.store.stop()
    contents.forget()
    for _ in range(2):
        with pytest.raises(
            BusyError, match=rf"at {pacs.store.dicomweb_url} does not .*there is no connection"
        ):
            contents.now()
    assert contents.last == found
    assert contents.find(pacs.ct.series_uid) == found.images[pacs.ct.series_uid]


@pytest.mark.parametrize("uid", ["undefined", "", "1.2.3", "../..", "1." * 40 + "1", "1." * 80 + "1"])
def test_what_is_not_there_is_not_found(contents, uid):
    assert contents.find(uid) is None


def test_a_series_with_a_longer_uid_than_dicom_allows_is_found(contents, pacs):
    contents.now()
    header = pydicom.dcmread(pacs.ct.files[0])
    header.SeriesInstanceUID = "1." * 32 + "11"
    path = pacs.folder / "long.dcm"
    header.save_as(path)
    pacs.store.add(path.read_bytes())
    assert contents.find("1." * 32 + "11").instances == 1


def test_a_store_that_comes_back_is_asked_again(contents, pacs, clock):
    pacs.store.is_down = True
    for _ in range(2):
        with pytest.raises(BusyError):
            contents.now()
    pacs.store.is_down = False
    clock.now += 3.1
    assert len(contents.now().images) == 2


def header(**elements):
    made = Dataset()
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3"
    made.ReferencedSeriesSequence = [series]
    made.SOPInstanceUID = "1.2.4"
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def test_when_it_was_made():
    times = [
        ({"ContentDate": "20260305", "ContentTime": "101112.25"}, "2026-03-05T10:11:12.250000+00:00"),
        (
            {"ContentDate": "20260305", "ContentTime": "1011", "TimezoneOffsetFromUTC": "+0130"},
            "2026-03-05T08:41:00+00:00",
        ),
        ({"SeriesDate": "20260305", "TimezoneOffsetFromUTC": "-0800"}, "2026-03-05T08:00:00+00:00"),
        (
            {"ContentDate": "", "InstanceCreationDate": "20260305", "InstanceCreationTime": "235959"},
            "2026-03-05T23:59:59+00:00",
        ),
        ({}, "1970-01-01T00:00:00+00:00"),
    ]
    for elements, moment in times:
        found = read_segmentation(header(**elements), "1", "2")
        assert datetime.fromtimestamp(found.made, timezone.utc) == datetime.fromisoformat(moment)


def test_names_and_what_it_was_drawn_on():
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel = 2, " spleen "
    found = read_segmentation(header(SegmentSequence=[segment]), "1", "2", seen=5.0)
    assert (found.uid, found.image_uid, found.study_uid, found.series_uid) == ("1.2.4", "1.2.3", "1", "2")
    assert (found.label_info, found.age) == ([{"name": "spleen", "idx": 2}], (5.0, 0.0))
    assert StoredSegmentation(**found.as_json()) == found


def test_one_that_names_no_series_is_none():
    assert read_segmentation(header(ReferencedSeriesSequence=[]), "1", "2") is None
    assert read_segmentation(Dataset(), "1", "2") is None
