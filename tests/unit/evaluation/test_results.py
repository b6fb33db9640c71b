from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lib.errors import EvaluationError
from lib.evaluation.results import ResultRow, paper_table, results_file, summarise, tables

ROW = ResultRow(
    run="r", weights="mini", pipeline="image", image='a, "b" | c', content="d", object=3, label="liver",
    frame=7, prompt="3 clicks", frames=1, values={"dice": 1 / 3, "nsd": 0.0},
)  # fmt: skip
ALL = replace(ROW, object=0, label="", values={"f1": 2 / 7})
VOLUME = replace(ROW, pipeline="volume", frame=None, values={"hd95": math.inf, "dice": 0.1})


@pytest.fixture
def path(tmp_path):
    results_file(tmp_path / "new" / "results.csv").append([ROW, ALL, VOLUME])
    return tmp_path / "new" / "results.csv"


def test_rows_come_back_as_they_were_bit_by_bit(path):
    found = results_file(path)
    for row in (ROW, ALL, VOLUME):
        assert found.get(row.key) == row


def test_a_row_of_other_circumstances_is_not_given(path):
    for other in (
        {"run": "s"}, {"content": "e"}, {"object": 4}, {"frame": 8}, {"prompt": "box"}, {"frames": 2},
    ):  # fmt: skip
        assert results_file(path).get(replace(ROW, **other).key) is None


def test_a_torn_last_line_is_left_out_and_the_file_goes_on(path):
    whole = path.read_bytes()
    for torn in [b"r,mini,ima", b"r,mini\n", b"\xff\xfe,", b"r" * 500, b'"r,mini\n']:
        path.write_bytes(whole + torn)
        found = results_file(path)
        assert found.get(ROW.key) == ROW
        fourth = replace(ROW, object=4)
        found.append([fourth])
        again = results_file(path)
        assert [again.get(row.key) for row in (ROW, ALL, VOLUME, fourth)] == [ROW, ALL, VOLUME, fourth]


def test_every_cut_of_the_file_leaves_whole_rows(path):
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        found = results_file(path)
        assert all(found.get(row.key) in (None, row) for row in (ROW, ALL, VOLUME))
        found.append([VOLUME])
        assert results_file(path).get(VOLUME.key) == VOLUME


def test_a_file_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("name,dice\na,0.5\n")
    with pytest.raises(EvaluationError, match=r"results\.csv has other columns than this program writes"):
        results_file(path)
    assert path.read_text() == "name,dice\na,0.5\n"


def test_json_has_null_for_what_is_not_finite():
    assert VOLUME.as_record()["hd95"] is None
    assert ROW.as_record()["dice"] == 1 / 3
    assert "f1" not in ROW.as_record()


def row(
    value, prompt="box", weights="mini", label="liver", metric="dice", pipeline="volume", image="a", **more
):
    fields = {"run": "r", "content": "c", "object": 1, "frame": None, "frames": 1, **more}
    return ResultRow(
        weights=weights,
        pipeline=pipeline,
        image=image,
        label=label,
        prompt=prompt,
        values={metric: value},
        **fields,
    )


def test_mean_and_deviation_are_those_of_the_sample():
    # 2, 4, 4, 4, 5, 5, 7, 9 have the mean 5 and the sum of squares 32 about it.
    spread = summarise([2, 4, 4, 4, 5, 5, 7, 9])
    assert spread.mean == 5
    assert spread.deviation == pytest.approx(math.sqrt(32 / 7))
    assert str(summarise([0.5])) == "0.5000"
    assert str(summarise([0.25, 0.75])) == "0.5000 ± 0.3536"

    # What is infinite is counted and in no mean.
    assert str(summarise([1.0, math.inf])) == "1.0000 (1 of 2 not found)"
    assert str(summarise([math.inf])) == "- (1 of 1 not found)"


def test_the_best_of_its_rivals_is_marked():
    rows = [
        row(0.5, weights="a"),
        row(0.7, weights="b"),
        row(0.9, "5 clicks", "a"),
        row(0.8, "5 clicks", "b"),
    ]
    (table,) = tables(rows)
    assert table.header == ["Prompt", "Weights", "Objects", "DSC"]
    assert table.rows == [
        ["box", "a", "1", "0.5000"],
        ["box", "b", "1", "0.7000"],
        ["5 clicks", "a", "1", "0.9000"],
        ["5 clicks", "b", "1", "0.8000"],
    ]
    assert table.best == {(1, 3), (2, 3)}
    assert "| box | b | 1 | **0.7000** |" in table.markdown()

    # The best prompt of a single network is marked and a single number is not.
    (table,) = tables([row(0.5), row(0.7, "3 clicks")])
    assert table.best == {(1, 3)}
    assert tables([row(0.5)])[0].best == frozenset()

    # Of a distance the smallest is the best.
    (table,) = tables([row(4.0, weights="a", metric="hd95"), row(2.0, weights="b", metric="hd95")])
    assert table.header[-1] == "HD95 (mm)"
    assert table.best == {(1, 3)}


def test_classes_have_a_table_of_their_own_where_there_are_several():
    rows = [row(0.5), row(0.7, label="aorta", object=2), row(0.1, image="b")]
    main, by_class = tables(rows)
    assert main.rows == [["box", "mini", "3", "0.4333 ± 0.3055"]]
    assert [line[:4] for line in by_class.rows] == [
        ["aorta", "box", "mini", "1"],
        ["liver", "box", "mini", "2"],
    ]
    assert by_class.detail


def test_all_objects_together_are_no_object():
    rows = [row(0.5, pipeline="image"), row(1.0, pipeline="image", metric="f1", object=0, label="")]
    (table,) = tables(rows)
    assert table.header == ["Prompt", "Weights", "Objects", "DSC", "F1"]
    assert table.rows == [["box", "mini", "1", "0.5000", "1.0000"]]


def test_a_video_has_a_column_for_each_number_of_frames():
    rows = [
        row(0.5, "3 clicks", pipeline="video", metric="jf"),
        row(0.6, "3 clicks", pipeline="video", metric="jf", frames=4),
        row(0.9, "mask", pipeline="video", metric="jf"),
    ]
    (table,) = tables(rows)
    assert table.title == "video: J&F"
    assert table.header == ["Prompt", "Weights", "Objects", "1 frame", "4 frames"]
    assert table.rows == [["3 clicks", "mini", "1", "0.5000", "0.6000"], ["mask", "mini", "1", "0.9000", ""]]


def test_rows_of_a_paper_stand_as_they_are():
    table = paper_table(
        [{"method": "SAM 2", "prompt": "box", "dice": 0.4431}, {"method": "U-Mamba", "nsd": 0.898}]
    )
    assert table.header == ["Method", "Prompt", "DSC", "NSD"]
    assert table.rows == [["SAM 2", "box", "0.4431", ""], ["U-Mamba", "", "", "0.8980"]]


def test_a_bar_in_a_name_does_not_break_the_table():
    (table,) = tables([row(0.5, weights="a|b")])
    assert "| box | a\\|b | 1 | 0.5000 |" in table.markdown()
