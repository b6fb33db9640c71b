"""Headers of segmentations; times by the standard's own rules."""

from datetime import datetime, timezone

import pytest
from pydicom import Dataset

from lib.datastores.catalog import StoredSegmentation, read_segmentation


def header(**elements):
    made = Dataset()
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3"
    made.ReferencedSeriesSequence = [series]
    made.SOPInstanceUID = "1.2.4"
    for name, value in elements.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("elements", "moment"),
    [
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
    ],
)
def test_when_it_was_made(elements, moment):
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
