import math
from dataclasses import replace

import pytest

from demo.report import judge, latencies, scores, table
from demo.session import work_through


@pytest.fixture
def perfect(volume, picture, viewer_of):
    return [
        work_through(viewer_of([volume.truth]), volume),
        work_through(viewer_of([picture.truth]), picture),
    ]


@pytest.fixture
def useless(volume, viewer_of):
    return [work_through(viewer_of([volume.truth & False]), volume)]


def test_a_right_server_passes(perfect):
    assert judge(perfect).failures == []
    assert judge(perfect).means == {"1 click": 1.0, "3 clicks": 1.0, "box": 1.0, "volume": 1.0}


def test_a_wrong_server_fails_with_each_number_and_what_is_needed(useless):
    failures = judge(useless).failures
    assert len(failures) == 3
    assert "box: mean Dice 0.000 is below 0.90" in failures


def test_a_column_that_nothing_was_measured_for_fails(perfect):
    only_picture = judge(perfect[1:])
    assert math.isnan(only_picture.means["volume"])
    assert [failure.split(":")[0] for failure in only_picture.failures] == ["volume"]


def test_a_picture_has_no_volume(perfect):
    assert "volume" in scores(perfect[0])
    assert "volume" not in scores(perfect[1])


def test_the_table_has_a_row_for_each_structure_the_means_and_what_is_needed(perfect):
    lines = table(perfect).splitlines()
    assert [line.split()[0] for line in lines] == ["image", "abdomen_ct", "cells", "mean", "needed"]
    assert len({len(line.rstrip()) for line in lines if not line.startswith("cells")}) == 1
    assert lines[-1].split() == ["needed", "0.85", "0.90", "0.85"]


def test_latencies_are_medians_in_milliseconds_and_leave_out_what_was_not_asked(perfect):
    assert "whole volume                 250 ms" in latencies(perfect)
    assert "whole volume" not in latencies(perfect[1:])


def test_only_the_first_request_on_a_slice_is_a_first_click(perfect):
    slow, others = replace(perfect[0].clicked[0], seconds=9.0), perfect[0].clicked[1:]
    first = replace(perfect[0], clicked=[slow, *others])
    assert latencies([first, perfect[0], perfect[0]]).splitlines()[:2] == [
        "first click on a slice      9000 ms",
        "any other on it              250 ms",
    ]
