import csv
import io
import math

import pytest

from benchmarks.accuracy_report import item_table, mean_dice, mean_table, object_table, to_csv, verdicts
from benchmarks.trials import GRABCUT, OURS, WALKER, WALKER_OWN


def _scores(box, rival, click=0.5, walker=0.4):
    return {
        ("box", OURS): box,
        ("box", GRABCUT): rival,
        ("1 click", OURS): click,
        ("1 click", WALKER): walker,
        ("1 click", WALKER_OWN): walker,
    }


@pytest.fixture
def trials(trials_of):
    return trials_of(_scores(0.9, 0.8), _scores(0.5, 0.7), seen=[True, False])


def test_means_leave_out_what_was_not_measured(trials):
    assert mean_dice(trials, "box", OURS) == pytest.approx(0.7)
    assert math.isnan(mean_dice(trials, "propagation", OURS))


def _rows(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_means_are_told_apart_by_what_the_weights_saw(trials):
    rows = [row for row in _rows(mean_table(trials)) if row[0] == "box"]
    assert rows == [
        ["box", "all", "2", "0.700", "0.750", "-", "-", "-"],
        ["box", "seen in training", "1", "0.900", "0.800", "-", "-", "-"],
        ["box", "not seen", "1", "0.500", "0.700", "-", "-", "-"],
    ]


def test_phantoms_are_one_group_and_what_was_not_measured_has_no_row(trials_of):
    rows = _rows(mean_table(trials_of(_scores(0.9, 0.8), seen=[None])))
    assert [row[:2] for row in rows] == [["box", "all"], ["1 click", "all"]]


def test_it_is_said_where_ours_is_not_above(trials):
    box, *_ = verdicts(trials)
    assert "box: our mean 0.700 is **not above** that of GrabCut, 0.750" in box
    assert box.endswith("not above on 1 of 2 objects (image1 1).")
    assert "1 click: our mean 0.500 is above that of random walker, 0.400" in list(verdicts(trials))[1]


def test_every_object_and_every_image_has_a_line(trials):
    assert "| image0 | organ0 | yes | 0.90 | 0.80 |" in object_table(trials)
    assert "| image1 | CT | no | 1 | 0.50 | 0.70 |" in item_table(trials)


def test_csv_has_a_column_per_prompt_and_method(trials):
    rows = list(csv.DictReader(io.StringIO(to_csv(trials))))
    assert rows[0]["box, ours"] == "0.9000"
    assert rows[1]["1 click, random walker, own clicks"] == "0.4000"
    assert rows[0]["propagation, ours"] == ""
