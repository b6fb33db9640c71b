import numpy as np
import pytest

from benchmarks.sheet import COLOURS, COLUMNS, PANEL, cut_out, draw_sheet
from benchmarks.trials import GRABCUT, OURS, Trial
from lib.reports.pictures import GAP


@pytest.fixture
def trial(target):
    trial = Trial(target, levels=np.full((30, 40, 3), 100, np.uint8))
    trial.boxed = {OURS: target.truth, GRABCUT: np.roll(target.truth, 3, axis=1)}
    for method in trial.boxed:
        trial.add("box", method, 0.5)
    return trial


def test_cut_out_is_twice_the_box_and_inside_the_image():
    assert cut_out((100, 100, 150, 140), 512, 512) == (75, 70, 100)
    assert cut_out((0, 0, 40, 20), 512, 512) == (0, 0, 80)
    assert cut_out((500, 505, 512, 512), 512, 512) == (480, 480, 32)


def test_a_sheet_has_a_panel_per_object_with_the_outlines(trial):
    sheet = draw_sheet([trial] * (COLUMNS + 1))
    assert sheet.width == COLUMNS * (PANEL + GAP) + GAP
    colours = {colour for _, colour in sheet.getcolors(maxcolors=sheet.width * sheet.height)}
    assert colours >= {COLOURS["truth"], COLOURS[GRABCUT]}


def test_an_object_that_was_not_measured_cannot_be_drawn(target):
    unmeasured = Trial(target)
    unmeasured.add("box", OURS, 0.1)
    with pytest.raises(ValueError, match="organ of ct was not measured"):
        draw_sheet([unmeasured])
