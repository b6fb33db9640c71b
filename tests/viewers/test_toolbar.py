"""What the toolbar keeps right for people who are fast, use the keyboard, or read names that others wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import requests
from playwright.sync_api import Route

from tests.support.server import Server
from tests.viewers.cases import Case
from tests.viewers.companion import Companion
from tests.viewers.ohif import Ohif
from tests.viewers.segmentations import LIMIT_S
from tests.viewers.serving import serving_alone

HOSTILE = "<img src=x onerror=window.hit=1>"
LABELS = "**/datastore/label?*"


@pytest.fixture
def companion(ohif: Ohif) -> Companion:
    return Companion(ohif)


@pytest.fixture(scope="module")
def case(cases: dict[str, Case]) -> Case:
    """The series of the server of its own."""
    return cases["oblique_mr"]


@pytest.fixture(scope="module")
def alone(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose only series has no label at first: the names of labels are those of the server, too."""
    with serving_alone([case.series.files[0].parent], tmp_path_factory.mktemp("toolbar")) as server:
        yield server


def test_what_is_drawn_while_a_label_is_on_its_way_is_not_called_saved(
    companion: Companion, cases: dict[str, Case]
) -> None:
    case = cases["top_first"]
    companion.open(case.series.study_uid)
    companion.segment("lesion")
    i, j, k = case.phantom.click("lesion")
    companion.click([i, j, k])
    sent: list[Route] = []

    def hold_the_first(route: Route) -> None:
        sent.append(route)
        if len(sent) > 1:
            route.continue_()

    companion.page.route(LABELS, hold_the_first)
    with companion.page.expect_request(LABELS):
        companion.key("Control+s")
    companion.key("Control+s")
    companion.click([i, j, k + 1])
    assert len(sent) == 1
    sent[0].continue_()
    companion.notice("The label is saved.")
    unsaved = companion.page.locator(".biosam2-status", has_text="Not saved yet")
    assert unsaved.count() == 1
    companion.press("save")
    unsaved.wait_for(state="hidden")


def test_the_keyboard_is_enough_and_run_says_what_is_missing(
    companion: Companion, cases: dict[str, Case]
) -> None:
    companion.open(cases["top_first"].series.study_uid)
    for name in ("organ", "lesion"):
        companion.page.focus(f"[data-segment={name}]")
        companion.key("Enter")
        # The button that was pressed stays the focused one.
        assert companion.page.evaluate("document.activeElement.dataset.segment") == name
        assert companion.page.locator(f"[data-segment={name}][aria-pressed=true]").count() == 1
    companion.key("r")
    companion.notice("There is no prompt to run")
    companion.accept = False
    with companion.page.expect_response("**/activelearning/hybrid"):
        companion.key("Alt+n")


def test_the_reason_is_shown_for_monai_labels_own_panel_too(alone: Server, new_page, case: Case) -> None:
    ohif = new_page(alone.url)
    ohif.open(case.series.study_uid)
    ohif.connect()
    run = ohif.unfold("Auto-Segmentation").get_by_role("button", name="Run")
    assert ohif.exchange("/infer/", "POST", run.click).status >= 400
    ohif.page.get_by_text("There is no label to learn from").first.wait_for()
    assert run.is_enabled()


def test_names_and_reasons_of_the_server_are_text(alone: Server, new_page, case: Case) -> None:
    answer = requests.put(
        f"{alone.url}/datastore/label",
        params={"image": case.series.series_uid},
        data={"params": json.dumps({"label_info": [{"name": HOSTILE, "idx": 1}], "client_id": HOSTILE})},
        files={"label": ("label.bin", case.truth.astype(np.uint8).tobytes(order="F"))},
        timeout=LIMIT_S,
    )
    assert answer.status_code == 200, answer.text
    companion = Companion(new_page(alone.url))
    companion.open(case.series.study_uid)
    companion.page.locator(".biosam2-status", has_text=HOSTILE).wait_for()
    companion.load_offered()
    companion.page.locator(".biosam2-segments").get_by_text(HOSTILE).wait_for()
    assert np.array_equal(companion.overlay(HOSTILE), case.truth)
    # A negative click without a starting mask, which the server refuses with the name of the segment.
    companion.key("f")
    companion.key("x")
    assert companion.click(case.phantom.click(case.label)).status == 400
    companion.notice(f"'{HOSTILE}' has only negative points")
    assert companion.page.locator("img[src=x]").count() == 0
    assert companion.page.evaluate("window.hit") is None
