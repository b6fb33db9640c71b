import csv
import io
import math

import pytest

from benchmarks.accuracy_report import (
    aims_table,
    as_frame,
    group_table,
    mean_dice,
    rival_sentences,
    split_table,
    to_csv,
)
from benchmarks.trials import FILLED, GRABCUT, OURS, WALKER, WALKER_OWN
from pretraining.split import HELD_OUT, TRAINED


def _scores(box, rival, click=0.5, walker=0.4):
    return {
        ("box", OURS): box,
        ("box", GRABCUT): rival,
        ("box", FILLED): rival - 0.1,
        ("1 click", OURS): click,
        ("1 click", WALKER): walker,
        ("1 click", WALKER_OWN): walker,
    }


@pytest.fixture
def trials(trials_of):
    return trials_of(_scores(0.9, 0.8), _scores(0.5, 0.7), splits=[TRAINED, HELD_OUT])


def _rows(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_means_leave_out_what_was_not_measured(trials):
    assert mean_dice(as_frame(trials), "box", OURS) == pytest.approx(0.7)
    assert math.isnan(mean_dice(as_frame(trials), "propagation", OURS))


def test_means_are_told_apart_by_split(trials):
    rows = [row for row in _rows(split_table(as_frame(trials))) if row[0] == "box"]
    assert rows == [
        ["box", "all", "2", "0.700", "0.750", "0.650", "-", "-"],
        ["box", "trained on", "1", "0.900", "0.800", "0.700", "-", "-"],
        ["box", "held out", "1", "0.500", "0.700", "0.600", "-", "-"],
    ]


def test_one_split_and_phantoms_are_one_group(trials_of):
    for splits in ([""], [HELD_OUT]):
        rows = _rows(split_table(as_frame(trials_of(_scores(0.9, 0.8), splits=splits))))
        assert [row[:2] for row in rows] == [["box", "all"], ["1 click", "all"]]


def test_aims_are_of_images_that_training_never_uses(trials_of):
    trials = trials_of(_scores(0.2, 0.1), _scores(0.9, 0.7, click=0.6), splits=[TRAINED, HELD_OUT])
    trials[1].corrections, trials[1].harmful, trials[1].clicks, trials[1].disobeyed = 4, 1, 15, 2
    before = [{"image": "image1", "object": "organ1", "box": {OURS: 0.8}}]
    assert _rows(aims_table(trials, before)) == [
        ["box", "1", "**0.900**", "≥ 0.88", "0.600", "0.800"],
        ["1 click", "1", "0.600 (missed)", "≥ 0.70", "0.400", "-"],
        ["harmful corrections", "4", "25.0% (missed)", "≤ 8%", "", ""],
        ["disobeyed clicks", "15", "2", "0", "", ""],
    ]


def test_it_is_said_where_ours_is_not_above(trials):
    box, *others = rival_sentences(as_frame(trials))
    assert "box: our mean 0.700 is **not above** that of GrabCut, 0.750" in box
    assert box.endswith("not above on 1 of 2 objects (CT 1).")
    assert "1 click: our mean 0.500 is above that of random walker, 0.400" in others[1]


def test_every_modality_and_every_image_has_a_line(trials):
    frame = as_frame(trials)
    assert "| CT | held out | 1 | 0.50 | 0.70 | 0.60 |" in group_table(frame, ["group", "split"])
    assert "| image1 | CT | held out | 1 | 0.50 |" in group_table(frame, ["image", "modality", "split"])


def test_csv_has_a_column_per_prompt_and_method(trials):
    rows = list(csv.DictReader(io.StringIO(to_csv(as_frame(trials)))))
    assert [row["image"] for row in rows] == ["image0", "image1"]
    assert rows[0]["box, ours"] == "0.9000"
    assert rows[1]["1 click, random walker, own clicks"] == "0.4000"
    assert rows[0]["propagation, ours"] == ""
