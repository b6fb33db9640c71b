import numpy as np
import pytest

from benchmarks.baselines import Click
from demo.picture import (
    BOX,
    FOOTER,
    HEADER,
    MASK,
    NEGATIVE,
    PANEL,
    POSITIVE,
    TITLES,
    TRUTH,
    SliceDrawer,
    draw,
)
from demo.session import Answered, work_through
from demo.targets import Target
from sample_study.case import Case


def answered(mask, window=(0, 100)):
    return Answered(mask, 1.0, 0.1, {"window": list(window)})


def colours(image):
    return {tuple(colour) for colour in np.asarray(image).reshape(-1, 3).tolist()}


def test_there_is_a_row_for_each_session(volume, picture, viewer_of):
    sessions = [work_through(viewer_of([target.truth]), target) for target in (volume, picture)]
    sheet = draw(sessions)
    assert sheet.width > len(TITLES) * PANEL
    assert sheet.height > HEADER + 2 * PANEL + FOOTER
    assert {MASK, TRUTH, BOX, POSITIVE} <= colours(sheet)


def test_prompts_are_drawn_where_they_are(volume):
    view = SliceDrawer(volume, answered(volume.truth))
    clicked = view.panel(6, clicks=[Click(30, 20, True), Click(10, 3, False)])
    scale = PANEL / 40
    assert clicked.getpixel((int(30.5 * scale), int(20.5 * scale))) == POSITIVE
    assert clicked.getpixel((int(10.5 * scale), int(3.5 * scale))) == NEGATIVE
    boxed = np.argwhere((np.asarray(view.panel(6, box=(20, 5, 26, 15))) == BOX).all(axis=2))
    assert boxed.min(axis=0) == pytest.approx([5 * scale, 20 * scale], abs=2)
    assert boxed.max(axis=0) == pytest.approx([15 * scale, 26 * scale], abs=2)


def test_a_panel_keeps_the_proportions_of_the_image(volume):
    assert SliceDrawer(volume, answered(volume.truth)).panel(6).size == (PANEL, PANEL * 30 // 40)


def test_the_mask_covers_the_structure_and_nothing_else(volume):
    panel = np.asarray(SliceDrawer(volume, answered(volume.truth)).panel(6, answer=answered(volume.truth)))
    plain = np.asarray(SliceDrawer(volume, answered(volume.truth)).panel(6))
    changed = np.argwhere((panel != plain).any(axis=2))
    low, high = changed.min(axis=0), changed.max(axis=0)
    height, width = panel.shape[:2]
    assert low == pytest.approx([5 * height / 30, 20 * width / 40], abs=2)
    assert high == pytest.approx([15 * height / 30, 26 * width / 40], abs=2)


def test_the_brightness_is_what_the_network_saw(volume):
    dark = SliceDrawer(volume, answered(volume.truth, window=(0, 1000))).panel(6)
    bright = SliceDrawer(volume, answered(volume.truth, window=(0, 100))).panel(6)
    assert np.asarray(dark).max() < 40
    assert np.asarray(bright).max() == 255


def test_the_patients_right_is_on_the_left_and_the_front_on_top(volume):
    case = volume.case
    turned = Case(case.name, case.image, case.truth, case.labels, np.diag([1.0, 1.0, 2.0, 1.0]))
    stored = np.asarray(SliceDrawer(volume, answered(volume.truth)).panel(6))
    seen = np.asarray(SliceDrawer(Target(turned, volume.label), answered(volume.truth)).panel(6))
    assert np.array_equal(seen, stored[::-1, ::-1])
