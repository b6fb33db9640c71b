"""The annotation toolbar: draw, undo, save, load, train, through its buttons and keys alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Response

from sample_study.orthanc import Orthanc
from tests.support.phantoms import dice
from tests.support.server import Server, copy_model_folder
from tests.viewers.cases import NAMES, Case
from tests.viewers.clicks import correction
from tests.viewers.companion import Companion, read_answer
from tests.viewers.ohif import Ohif
from tests.viewers.segmentations import Stored, newest, stored

GOOD = 0.85
CLICKS = 10
PAUSE_MS = 300
APART = 14  # pixels of the screen


@pytest.fixture
def companion(ohif: Ohif) -> Companion:
    return Companion(ohif)


def same_in_the_store(pacs: Orthanc, case: Case, before: dict[str, Stored], companion: Companion) -> None:
    """Compares every drawn segment with the stored one, in world coordinates."""
    segmentation = newest(pacs, case, before)
    overlay = companion.ohif.overlay()
    drawn = {name: value for name, value in companion.ohif.segments().items() if (overlay == value).any()}
    assert set(segmentation.names) == set(drawn)
    for name, value in drawn.items():
        assert np.array_equal(segmentation.mask(name, case.phantom.affine, overlay.shape), overlay == value)


@pytest.mark.parametrize("name", NAMES)
def test_two_organs_undo_redo_save_load_correct(
    companion: Companion, cases: dict[str, Case], pacs: Orthanc, name: str
) -> None:
    case = cases[name]
    first = case.label
    clicks = {first: case.phantom.click(first)}
    second = next((name for name in case.phantom.objects if name != first), "organ")
    # Where there is one object, the second segment takes the next slice of it.
    i, j, k = clicks[first]
    clicks[second] = case.phantom.click(second) if second in case.phantom.objects else [i, j, k + 1]
    companion.open(case.series.study_uid)
    for label in (first, second):
        if label not in companion.ohif.segments():
            companion.add_segment(label)
        companion.segment(label)
        assert companion.marks() == 0
        answer = companion.click(clicks[label])
        assert answer.status == 200, answer.text
        assert companion.marks() == 1
        # Voxels that another segment has stay with it.
        assert not (companion.overlay(label) & ~answer.mask).any()
    drawn = companion.ohif.overlay()
    assert companion.overlay(first).any()
    assert companion.overlay(second).any()

    companion.press("undo")
    assert not companion.overlay(second).any()
    assert np.array_equal(companion.overlay(first), drawn == companion.ohif.segments()[first])
    companion.key("Control+y")
    assert np.array_equal(companion.ohif.overlay(), drawn)

    before = stored(pacs, case.series.series_uid)
    companion.save()
    same_in_the_store(pacs, case, before, companion)

    companion.reload()
    assert not companion.ohif.overlay().any()
    companion.load_offered()
    assert set(companion.ohif.segments()) >= {first, second}
    assert np.array_equal(companion.ohif.overlay() > 0, drawn > 0)
    companion.segment(first)  # which takes it up: clicks correct it
    k = clicks[first][2]
    truth = case.phantom.objects[first][:, :, k]
    row, place = correction(companion.overlay(first)[:, :, k], truth, first)
    if row == "background":
        companion.click(clicks[first])
        companion.press("negative")
    companion.click([*place, k])
    assert dice(companion.overlay(first)[:, :, k], truth) >= GOOD
    before = stored(pacs, case.series.series_uid)
    companion.save()
    same_in_the_store(pacs, case, before, companion)
    assert companion.dialogs == []


def test_a_box_and_a_negative_click(companion: Companion, cases: dict[str, Case]) -> None:
    case = cases["top_first"]
    companion.open(case.series.study_uid)
    companion.segment("lesion")
    _, j, k = case.phantom.click("lesion")
    inside = np.argwhere(case.phantom.objects["lesion"][:, :, k])
    (x0, y0), (x1, y1) = inside.min(0), inside.max(0)
    companion.key("b")
    answer = companion.drag([[x0, y0, k], [x1, y1, k]])
    ((*box, index),) = answer.sent["boxes"]
    assert index == k
    assert np.abs(np.subtract(box, [x0, y0, x1 + 1, y1 + 1])).max() <= 1
    assert np.array_equal(companion.overlay("lesion"), answer.mask)
    assert dice(companion.overlay("lesion")[:, :, k], case.phantom.objects["lesion"][:, :, k]) >= GOOD

    companion.key("p")
    companion.key("x")
    answer = companion.click([x1, j, k])
    assert len(answer.sent["background"]) == 1
    assert np.array_equal(companion.overlay("lesion"), answer.mask)


def test_a_negative_click_alone_shows_the_reason(companion: Companion, cases: dict[str, Case]) -> None:
    companion.open(cases["top_first"].series.study_uid)
    companion.segment("organ")
    companion.key("x")
    assert companion.click(cases["top_first"].phantom.click("organ")).status == 400
    companion.notice("has only negative points")
    assert companion.page.locator("[data-action=run]").is_enabled()
    # The keys are listed, and say it as well as the buttons do.
    keys = companion.page.locator(".biosam2-help")
    for shown in (True, False):
        companion.key("?")
        assert keys.is_visible() == shown


def test_live_mode_shows_the_answer_to_the_last_of_ten_clicks_and_all_are_undone(
    companion: Companion, cases: dict[str, Case]
) -> None:
    case = cases["bottom_first"]
    companion.open(case.series.study_uid)
    companion.segment("lesion")
    i, j, k = case.phantom.click("lesion")
    x, y = companion.place([i, j, k], "mpr-axial")
    answers: list[Response] = []

    def keep(response: Response) -> None:
        if "/infer/" in response.url:
            answers.append(response)

    companion.page.on("response", keep)
    for step in range(CLICKS):
        # Cornerstone takes two clicks at one place for a double click.
        angle = 2 * np.pi * step * 3 / CLICKS
        companion.page.mouse.click(x + APART * np.cos(angle), y + APART * np.sin(angle))
        companion.page.wait_for_timeout(PAUSE_MS)
    companion.idle()
    answer = read_answer(max(answers, key=lambda response: len(response.request.post_data or "")))
    assert len(answer.sent["foreground"]) == CLICKS
    assert np.array_equal(companion.overlay("lesion"), answer.mask)

    # As many again that run when asked; then all of them are taken back, and repeated.
    companion.key("v")
    for step in range(CLICKS):
        companion.page.mouse.click(x - APART * (step + 1), y - 3 * APART)
        companion.until_marks(CLICKS + step + 1)
    answer = companion.answer(lambda: companion.page.keyboard.press("r"))
    assert len(answer.sent["foreground"]) == 2 * CLICKS
    drawn = companion.ohif.overlay()
    for _ in range(2 * CLICKS):
        assert companion.page.locator("[data-action=undo]").is_enabled()
        companion.key("Control+z")
    assert companion.page.locator("[data-action=undo]").is_disabled()
    assert not companion.ohif.overlay().any()
    for _ in range(2 * CLICKS):
        companion.key("Control+y")
    assert companion.page.locator("[data-action=redo]").is_disabled()
    assert np.array_equal(companion.ohif.overlay(), drawn)


def test_the_second_of_two_people_is_asked_and_both_labels_stay(
    new_page: Callable[[str], Ohif], server: Server, cases: dict[str, Case], pacs: Orthanc
) -> None:
    case = cases["oblique_ct"]
    one, two = Companion(new_page(server.url)), Companion(new_page(server.url))
    for person in (one, two):
        person.open(case.series.study_uid)
        person.segment("organ")
    one.click(case.phantom.click("organ"))
    two.click(case.phantom.click("organ"))
    before = stored(pacs, case.series.series_uid)
    one.save()
    two.accept = False
    two.press("save")
    two.notice("after yours was loaded")
    assert len(two.dialogs) == 1
    assert len(stored(pacs, case.series.series_uid)) == len(before) + 1
    two.accept = True
    two.save()
    assert len(stored(pacs, case.series.series_uid)) == len(before) + 2


def test_the_overlay_stays_while_the_server_is_away(
    new_page: Callable[[str], Ohif], pacs: Orthanc, cases: dict[str, Case], tmp_path
) -> None:
    case = cases["oblique_mr"]
    conf = {"labels": "tumour", "model_dir": str(copy_model_folder(tmp_path / "model"))}
    server = Server(pacs.dicomweb_url, tmp_path, conf).start()
    try:
        companion = Companion(new_page(server.url))
        companion.open(case.series.study_uid)
        companion.segment("tumour")
        companion.click(case.phantom.click("tumour"))
        drawn = companion.ohif.overlay()
        server.stop()
        companion.press("save")
        companion.notice("The server cannot be reached")
        assert np.array_equal(companion.ohif.overlay(), drawn)
        server.start()
        before = stored(pacs, case.series.series_uid)
        companion.save()
        same_in_the_store(pacs, case, before, companion)
    finally:
        server.stop()


def test_a_scribble_and_a_lasso_give_the_mask_that_the_server_computed(
    companion: Companion, cases: dict[str, Case]
) -> None:
    case = cases["top_first"]
    truth = case.phantom.objects["organ"]
    companion.open(case.series.study_uid)
    companion.segment("organ")
    i, j, k = case.phantom.click("organ")
    companion.key("g")
    answer = companion.drag([[i - 4, j - 3, k], [i, j, k], [i + 4, j + 3, k]])
    assert answer.status == 200, answer.text
    (stroke,) = answer.sent["scribbles"]
    assert (stroke["slice"], stroke["positive"]) == (k, True)
    assert np.array_equal(companion.overlay("organ"), answer.mask)
    assert answer.mask[i, j, k]

    companion.press("next")
    assert companion.marks() == 0
    companion.press("undo")
    assert not companion.overlay("organ").any()
    companion.key("l")
    (x0, y0), (x1, y1) = (edge(np.argwhere(truth[:, :, k]), 0) for edge in (np.min, np.max))
    corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0 + 1]]
    answer = companion.drag([[x, y, k] for x, y in corners])
    assert answer.status == 200, answer.text
    assert answer.sent["lassos"][0]["slice"] == k
    assert np.array_equal(companion.overlay("organ"), answer.mask)
    assert dice(answer.mask[:, :, k], truth[:, :, k]) >= GOOD
    companion.picture("ohif_lasso")


def test_a_training_is_shown_and_stopped(companion: Companion, cases: dict[str, Case]) -> None:
    names = ("top_first", "bottom_first")
    for name in names:
        companion.open(cases[name].series.study_uid)
        companion.segment("lesion")
        companion.click(cases[name].phantom.click("lesion"))
        companion.press("save")
        companion.notice("The label is saved.")
    companion.press("train")
    companion.page.get_by_role("button", name="Stop training").wait_for()
    companion.notice("Training")
    companion.press("train")
    companion.page.get_by_role("button", name="Update model").wait_for()


def test_negative_strokes_take_their_pixels_out_of_the_mask(
    companion: Companion, cases: dict[str, Case]
) -> None:
    case = cases["top_first"]
    companion.open(case.series.study_uid)
    companion.segment("organ")
    i, j, k = case.phantom.click("organ")
    assert companion.click([i - 8, j, k]).mask[i + 4, j, k]
    companion.key("x")
    for key, kind in (("g", "scribbles"), ("l", "lassos")):
        companion.key(key)
        corners = [
            [i + 3, j - 2, k],
            [i + 6, j - 2, k],
            [i + 6, j + 2, k],
            [i + 3, j + 2, k],
            [i + 3, j - 1, k],
        ]
        answer = companion.drag(corners)
        assert answer.status == 200, answer.text
        assert answer.sent[kind][-1]["positive"] is False
        assert np.array_equal(companion.overlay("organ"), answer.mask)
        assert not answer.mask[i + 3, j - 2, k]
        assert answer.mask[i - 8, j, k]
    assert not answer.mask[i + 4, j, k]

    companion.key("b")
    answer = companion.drag([[i - 6, j - 3, k], [i - 3, j + 3, k]])
    assert answer.status == 200, answer.text
    assert answer.sent["boxes"] == []
    assert np.array_equal(companion.overlay("organ"), answer.mask)
    assert not answer.mask[i - 5 : i - 3, j - 2 : j + 3, k].any()


def test_a_label_of_two_organs_takes_five_actions(companion: Companion, cases: dict[str, Case]) -> None:
    case = cases["bottom_first"]
    companion.open(case.series.study_uid)
    for label in ("lesion", "organ"):
        companion.segment(label)
        companion.click(case.phantom.click(label))
    companion.accept = True
    companion.save()
    assert companion.actions == 5
    companion.picture("ohif_toolbar")


def test_a_build_of_ohif_without_a_part_has_no_toolbar_and_the_console_says_so(
    ohif: Ohif, cases: dict[str, Case]
) -> None:
    hidden = "Object.defineProperty(window, 'commandsManager', {get: () => undefined, set: () => {}});"
    ohif.page.add_init_script(hidden)
    with ohif.page.expect_console_message(lambda message: "toolbar is off" in message.text) as found:
        ohif.open(cases["top_first"].series.study_uid)
    assert "commandsManager" in found.value.text
    assert not ohif.page.locator(".biosam2-toolbar").count()
    ohif.connect()
