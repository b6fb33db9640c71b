import math
from dataclasses import replace

import pytest

from lib.errors import EvaluationError
from lib.evaluation.results import ResultRow, ResultsFile

ROW = ResultRow(
    run="r", weights="mini", pipeline="image", image='a, "b" | c', content="d", object=3, label="liver",
    frame=7, prompt="3 clicks", frames=1, values={"dice": 1 / 3, "nsd": 0.0},
)  # fmt: skip
ALL = replace(ROW, object=0, label="", values={"f1": 2 / 7})
VOLUME = replace(ROW, pipeline="volume", frame=None, values={"hd95": math.inf, "dice": 0.1})


@pytest.fixture
def path(tmp_path):
    ResultsFile(tmp_path / "new" / "results.csv").append([ROW, ALL, VOLUME])
    return tmp_path / "new" / "results.csv"


def test_rows_come_back_as_they_were_bit_by_bit(path):
    found = ResultsFile(path)
    for row in (ROW, ALL, VOLUME):
        assert found.get(row.key) == row


def test_a_row_of_other_circumstances_is_not_given(path):
    for other in (
        {"run": "s"}, {"content": "e"}, {"object": 4}, {"frame": 8}, {"prompt": "box"}, {"frames": 2},
    ):  # fmt: skip
        assert ResultsFile(path).get(replace(ROW, **other).key) is None


@pytest.mark.parametrize("torn", [b"r,mini,ima", b"r,mini\n", b"\xff\xfe,", b"r" * 500, b'"r,mini\n'])
def test_a_torn_last_line_is_left_out_and_the_file_goes_on(path, torn):
    with path.open("ab") as file:
        file.write(torn)
    found = ResultsFile(path)
    assert found.get(ROW.key) == ROW
    fourth = replace(ROW, object=4)
    found.append([fourth])
    again = ResultsFile(path)
    assert [again.get(row.key) for row in (ROW, ALL, VOLUME, fourth)] == [ROW, ALL, VOLUME, fourth]


def test_every_cut_of_the_file_leaves_whole_rows(path):
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        found = ResultsFile(path)
        assert all(found.get(row.key) in (None, row) for row in (ROW, ALL, VOLUME))
        found.append([VOLUME])
        assert ResultsFile(path).get(VOLUME.key) == VOLUME


def test_a_file_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("name,dice\na,0.5\n")
    with pytest.raises(EvaluationError, match=r"results\.csv has other columns than this program writes"):
        ResultsFile(path)
    assert path.read_text() == "name,dice\na,0.5\n"


def test_json_has_null_for_what_is_not_finite():
    assert VOLUME.as_record()["hd95"] is None
    assert ROW.as_record()["dice"] == 1 / 3
    assert "f1" not in ROW.as_record()
