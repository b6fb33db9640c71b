"""One object and several through a whole volume."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.client import read_nrrd
from tests.support.phantoms import dice
from tests.viewers.cases import Case
from tests.viewers.clicks import correction
from tests.viewers.ohif import Ohif

GOOD = 0.85
LABELS = ("organ", "lesion")


@pytest.mark.parametrize("name", ["top_first", "oblique_mr"])
def test_a_click_is_followed_through_the_volume(ohif: Ohif, cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    ohif.open(case.series.study_uid)
    ohif.connect()
    ohif.choose("biosam2_propagate")
    click = case.phantom.click(case.label)
    ohif.label(case.label)
    ohif.click(click)
    first = ohif.run()
    k = first.params["foreground"][0][2]
    mask = read_nrrd(first.body)[0] > 0

    row, place = correction(mask[:, :, k], case.truth[:, :, k], case.label)
    ohif.label(row)
    ohif.click([*place, k])
    ohif.label(case.label)
    sent, _ = read_nrrd(ohif.run().body)
    overlay = ohif.overlay() == ohif.segments()[case.label]
    ohif.show(click)
    assert np.array_equal(overlay, sent > 0)
    assert np.all(np.any(overlay[:, :, k - 2 : k + 3], axis=(0, 1)))
    assert dice(overlay, case.truth) >= GOOD


@pytest.mark.parametrize("rows", [LABELS, ("background", *LABELS)], ids=["labels", "and background"])
def test_several_labels_at_once(ohif: Ohif, cases: dict[str, Case], rows: tuple[str, ...]) -> None:
    case = cases["top_first"]
    ohif.open(case.series.study_uid)
    ohif.connect()
    ohif.choose("biosam2_multi")
    for row in rows:
        ohif.label(row)
        # What is neither: in the body, beside the organ on the slice where it is clicked.
        outside = [48, 40, case.phantom.middle("organ")]
        ohif.click(outside if row == "background" else case.phantom.click(row))
    exchange = ohif.run()
    assert set(exchange.params) >= set(LABELS)
    assert len(exchange.params["background"]) == len(rows) - len(LABELS)
    sent, _ = read_nrrd(exchange.body)
    overlay, segments = ohif.overlay(), ohif.segments()
    ohif.show(case.phantom.click("lesion"))
    # The server's 2 and 3; OHIF sorts its segments by name.
    for label, value in (("organ", 2), ("lesion", 3)):
        assert np.array_equal(overlay == segments[label], sent == value)
        assert dice(overlay == segments[label], case.phantom.objects[label]) >= GOOD
