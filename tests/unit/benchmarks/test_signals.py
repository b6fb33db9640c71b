import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.items import DATA_VARIABLE, Item
from benchmarks.signals import (
    BOX,
    CLICK,
    LEAST_OBJECTS,
    MOST_CELLS,
    SCORE,
    SignalSample,
    correlation,
    group_of,
    main,
    objects_of,
    prompts_for,
    report,
    table,
    to_csv,
)


def item(name="x", modality="CT", rule="labels", names=None):
    return Item(
        name, modality, Path(f"{name}.nii.gz"), Path("label"), names or {1: "organ"}, rule, "trained on"
    )


def answers(told, errors, prompt=BOX, group="CT"):
    return [
        SignalSample(group, False, prompt, error, {"jitter": value, SCORE: value})
        for value, error in zip(told, errors, strict=True)
    ]


def test_images_are_grouped_by_what_they_are():
    named = [("brats_0005_flair", "MR FLAIR"), ("brain", "MR"), ("a", "electron microscopy")]
    assert [group_of(item(*each)) for each in named] == ["BraTS", "MR", "EM"]
    assert group_of(item("b", "fluorescence microscopy")) == "nuclei"


def test_a_signal_that_grows_with_the_error_has_a_correlation_of_one():
    errors = np.linspace(0, 1, 20)
    assert correlation(answers(errors**3, errors), "jitter")[0] == pytest.approx(1)
    assert correlation(answers(-errors, errors), "jitter")[0] == pytest.approx(-1)
    # 21 pairs in order but for the first, which has the largest error: sum of d^2 is 20^2 + 20.
    mixed = [*errors[-1:] + 1, *errors]
    expected = 1 - 6 * (20**2 + 20) / (21 * (21**2 - 1))
    assert correlation(answers(np.arange(21), mixed), "jitter")[0] == pytest.approx(expected)


@pytest.mark.parametrize("told", [np.arange(LEAST_OBJECTS - 1), np.ones(LEAST_OBJECTS)])
def test_few_answers_and_a_signal_that_never_changes_have_none(told):
    value, chance = correlation(answers(told, np.arange(len(told))), "jitter")
    assert math.isnan(value)
    assert math.isnan(chance)
    assert math.isnan(correlation(answers(told, np.arange(len(told))), "entropy")[0])


def test_the_table_has_a_line_for_every_prompt_and_kind_and_bold_where_it_is_not_chance():
    errors = np.linspace(0, 1, 20)
    few = answers(errors[:5], errors[:5], group="few")
    text = table([*answers(errors, errors), *few, *answers(errors, errors[::-1], CLICK)])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        [BOX, "CT", "20"],
        [BOX, "all", "25"],
        [CLICK, "CT", "20"],
        [CLICK, "all", "20"],
    ]
    assert rows[0] == [BOX, "CT", "20", "0.500", "-", "**1.00**", "-", "-", "-", "**1.00**"]
    assert rows[2][-1] == "**-1.00**"


def test_a_report_says_what_it_is_and_what_the_weights_have_seen():
    own = [SignalSample("EM", True, BOX, 0.5, {SCORE: 0.5})]
    text = report(own, "About.", "mini")
    assert text.startswith("About.\n\nWeights: mini.")
    assert "trained on images of these kinds: EM" in text


def test_every_answer_has_a_line():
    rows = list(csv.reader(io.StringIO(to_csv(answers([0.25], [0.5])))))
    assert rows[0][:4] == ["images", "seen", "prompt", "error"]
    assert rows[1] == ["CT", "False", "box", "0.50000", "-", "0.25000", "-", "-", "-", "0.25000"]


def test_objects_are_cells_pieces_or_structures_slice_by_slice():
    cells = np.zeros((40, 30, 1), np.int32)
    cells[::2, ::2, 0] = np.arange(300).reshape(20, 15) + 1
    assert len(list(objects_of(item(rule="instances"), cells))) == MOST_CELLS

    pieces = np.zeros((40, 30, 1), np.int32)
    pieces[2:12, 2:12] = pieces[20:30, 5:15] = pieces[35, 20] = 1
    found = sorted(int(mask.sum()) for _, mask in objects_of(item(rule="components"), pieces))
    assert found == [100, 100]

    volume = np.zeros((40, 30, 12), np.int32)
    volume[20:28, 5:15, 2:11] = 1
    slices = list(objects_of(item(), volume))
    assert [index for index, _ in slices] == [2, 4, 7, 10]
    assert all(mask.shape == (30, 40) and mask[10, 24] for _, mask in slices)


def test_prompts_are_a_box_and_a_click_on_the_object():
    truth = np.zeros((30, 40), bool)
    truth[5:15, 20:28] = True
    prompts = prompts_for(truth, np.random.default_rng(0))
    (x, y), *rest = prompts[CLICK].points.astype(int).tolist()
    assert truth[y, x]
    assert not rest
    np.testing.assert_allclose(prompts[BOX].box, [20, 5, 28, 15], atol=4)


def test_it_runs_on_the_phantoms_where_there_are_no_real_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    main(["--output", str(tmp_path / "out"), "--device", "cpu", "--threads", "1"])
    text = (tmp_path / "out" / "signals.md").read_text()
    assert "phantoms" in text
    assert "| box | all |" in text
    assert "biosam2_mini" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "signals.csv").read_text().splitlines()))
    assert all(0 <= float(row["error"]) <= 1 and 0 <= float(row["score"]) <= 1 for row in rows)
