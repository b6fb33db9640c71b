"""Connect, click, run, correct: what a person sees is what the server computed, and is right."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.client import read_nrrd
from tests.support.phantoms import dice
from tests.viewers.cases import NAMES, Case
from tests.viewers.clicks import correction
from tests.viewers.ohif import Exchange, Ohif

# After one click and one correction; what is asked of the whole app.
GOOD = 0.85
# OHIF rounds a place on the screen to a voxel.
ROUNDING = 1


@pytest.fixture(params=NAMES)
def case(cases: dict[str, Case], request: pytest.FixtureRequest) -> Case:
    return cases[request.param]


def shows(ohif: Ohif, exchange: Exchange, label: str) -> np.ndarray:
    """The overlay of a label, after a look whether it is the mask that the server sent."""
    assert exchange.status == 200, exchange.body
    sent, _ = read_nrrd(exchange.body)
    overlay = ohif.overlay() == ohif.segments()[label]
    assert np.array_equal(overlay, sent > 0)
    return overlay


def test_a_click_and_a_correction(ohif: Ohif, case: Case) -> None:
    ohif.open(case.series.study_uid)
    ohif.connect()
    # The same voxels in the same order as in the series, or a right mask could lie in a wrong place.
    assert np.array_equal(ohif.image(), case.phantom.image)

    ohif.choose("biosam2_point")
    assert ohif.labels() == ["background", "lesion", "organ", "tumour"]
    click = case.phantom.click(case.label)
    ohif.label(case.label)
    ohif.click(click)
    first = ohif.run()
    assert case.series.series_uid in first.url
    (sent,) = first.params["foreground"]
    assert np.abs(np.subtract(sent, click)).max() <= ROUNDING
    k = sent[2]
    mask = shows(ohif, first, case.label)
    assert set(np.nonzero(mask)[2]) == {k}

    row, place = correction(mask[:, :, k], case.truth[:, :, k], case.label)
    ohif.label(row)
    ohif.click([*place, k])
    ohif.label(case.label)
    second = ohif.run()
    assert len(second.params["foreground"]) + len(second.params["background"]) == 2
    corrected = shows(ohif, second, case.label)
    assert dice(corrected[:, :, k], case.truth[:, :, k]) >= GOOD


def test_a_negative_point_takes_its_place_out_of_the_mask(ohif: Ohif, cases: dict[str, Case]) -> None:
    case = cases["top_first"]
    ohif.open(case.series.study_uid)
    ohif.connect()
    ohif.choose("biosam2_point")
    ohif.label("lesion")
    i, j, k = case.phantom.click("lesion")
    ohif.click([i - 3, j, k])
    assert shows(ohif, ohif.run(), "lesion")[i + 3, j, k]
    ohif.label("background")
    ohif.click([i + 3, j, k])
    ohif.label("lesion")
    exchange = ohif.run()
    assert exchange.params["foreground"] == [[i - 3, j, k]]
    assert exchange.params["background"] == [[i + 3, j, k]]
    mask = shows(ohif, exchange, "lesion")
    assert mask[i - 3, j, k]
    assert not mask[i + 3, j, k]


def test_a_second_slice_leaves_the_first_as_it_is(ohif: Ohif, cases: dict[str, Case]) -> None:
    case = cases["bottom_first"]
    ohif.open(case.series.study_uid)
    ohif.connect()
    ohif.choose("biosam2_point")
    ohif.label("lesion")
    i, j, k = case.phantom.click("lesion")
    masks = []
    for step in (0, 2):
        ohif.click([i, j, k + step])
        masks.append(read_nrrd(ohif.run().body)[0] > 0)
    overlay = ohif.overlay() == ohif.segments()["lesion"]
    assert np.array_equal(overlay, masks[0] | masks[1])
    assert dice(overlay[:, :, [k, k + 2]], case.truth[:, :, [k, k + 2]]) >= GOOD
