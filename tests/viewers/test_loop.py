"""The whole loop in OHIF: three series labelled by hand, a training, and a better click, on one server."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from sample_study.dicom import Series, write_series
from tests.support.phantoms import THROUGH_VOLUME, Phantom, dice, rimmed
from tests.support.server import Server
from tests.viewers.clicks import correction
from tests.viewers.companion import Companion
from tests.viewers.serving import serving_alone
from tests.viewers.test_learning import LIMIT_S, press, wait_for

LABELLED = (0, 1, 2)
HELD_OUT = 3
LABEL = "bright"
# What is drawn with the mouse has at least this Dice with the truth.
DRAWN = 0.8
# Enough for the rims of the phantoms to be learnt.
SHORT = {
    "preset": "decoder",
    "image_size": 128,
    "max_epochs": 3,
    "steps_per_epoch": 12,
    "batch_size": 3,
    "learning_rate": 5e-4,
    "clip_share": 0.1,
    "warmup_steps": 5,
}


@pytest.fixture(scope="module")
def phantoms() -> dict[int, Phantom]:
    return {seed: rimmed(seed) for seed in (*LABELLED, HELD_OUT)}


@pytest.fixture(scope="module")
def series(phantoms: dict[int, Phantom], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Series]:
    folder = tmp_path_factory.mktemp("rimmed")
    return {
        seed: write_series(
            folder / str(seed),
            np.rint(phantom.image),
            phantom.affine,
            patient=f"case{seed}",
            window=(100, 300),
        )
        for seed, phantom in phantoms.items()
    }


@pytest.fixture(scope="module")
def loop_server(series: dict[int, Series], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model this test changes, on a store of its own."""
    folders = [item.files[0].parent for item in series.values()]
    with serving_alone(folders, tmp_path_factory.mktemp("loop"), LABEL) as server:
        yield server


def test_a_models_label_is_offered_and_corrected(
    new_page, loop_server: Server, phantoms: dict[int, Phantom], series: dict[int, Series], tmp_path: Path
) -> None:
    companion = Companion(new_page(loop_server.url))
    phantom, uid = phantoms[HELD_OUT], series[HELD_OUT].series_uid
    truth, k = phantom.objects[LABEL], phantom.middle(LABEL)
    # On another grid than the image's, as a program may have written it.
    turned = phantom.affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    turned[:3, 3] += phantom.affine[:3, 0] * (truth.shape[0] - 1)
    nib.save(nib.Nifti1Image(truth[::-1].astype(np.uint8), turned), tmp_path / "label.nii.gz")
    sent = requests.put(
        f"{loop_server.url}/datastore/label",
        params={"image": uid, "tag": "original"},
        data={"params": json.dumps({"label_info": [{"name": LABEL, "idx": 1}]})},
        files={"label": ("label.nii.gz", (tmp_path / "label.nii.gz").read_bytes())},
        timeout=LIMIT_S,
    )
    assert sent.status_code == 200, sent.text
    companion.open(series[HELD_OUT].study_uid)
    companion.load_offered()
    assert np.array_equal(companion.overlay(LABEL), truth)
    # It is taken up: a negative click corrects it.
    place = phantom.click(LABEL)
    companion.key("x")
    answer = companion.click(place)
    assert answer.status == 200, answer.text
    overlay = companion.overlay(LABEL)
    assert not overlay[tuple(place)]
    assert np.array_equal(np.delete(overlay, k, 2), np.delete(truth, k, 2))
    # So does a second one: what the first one left is still there.
    beside = [place[0] - 4, *place[1:]]
    answer = companion.click(beside)
    assert answer.status == 200, answer.text
    corrected = companion.overlay(LABEL)
    assert not corrected[tuple(place)]
    assert not corrected[tuple(beside)]
    assert not (corrected & ~overlay).any()
    assert np.array_equal(np.delete(corrected, k, 2), np.delete(truth, k, 2))


def test_a_label_without_a_prompt_is_corrected_and_saved(
    new_page, loop_server: Server, phantoms: dict[int, Phantom], series: dict[int, Series]
) -> None:
    companion = Companion(new_page(loop_server.url))
    first, second = LABELLED[:2]
    companion.open(series[second].study_uid)
    companion.press("auto")
    companion.notice("There is no label to learn from")
    companion.open(series[first].study_uid)
    companion.key("m")
    companion.key("b")
    truth, k = phantoms[first].objects[LABEL], phantoms[first].middle(LABEL)
    assert companion.drag(corners(truth[:, :, k], k)).status == 200
    companion.save()

    companion.open(series[second].study_uid)
    truth, k = phantoms[second].objects[LABEL], phantoms[second].middle(LABEL)
    answer = companion.answer(lambda: companion.page.click("[data-action=auto]"))
    assert answer.status == 200, answer.text
    assert np.array_equal(companion.overlay(LABEL), answer.mask)
    found = dice(answer.mask, truth)
    assert found >= THROUGH_VOLUME
    companion.ohif.show(phantoms[second].click(LABEL))
    companion.picture("ohif_auto")
    row, place = correction(answer.mask[:, :, k], truth[:, :, k], LABEL)
    if row == "background":
        companion.key("x")
    answer = companion.click([*place, k])
    assert answer.status == 200, answer.text
    overlay = companion.overlay(LABEL)
    assert overlay[(*place, k)] == (row != "background")
    assert dice(overlay, truth) >= found
    companion.press("undo")
    companion.press("undo")
    assert not companion.overlay(LABEL).any()
    companion.press("redo")
    companion.press("redo")
    assert np.array_equal(companion.overlay(LABEL), overlay)
    companion.save()
    label = requests.get(
        f"{loop_server.url}/datastore/label",
        params={"label": series[second].series_uid, "tag": "final"},
        timeout=LIMIT_S,
    )
    assert label.status_code == 200, label.text
    saved = nib.Nifti1Image.from_bytes(gzip.decompress(label.content))
    assert np.array_equal(np.asarray(saved.dataobj) > 0, overlay)


def test_three_series_are_labelled_and_the_click_on_a_fourth_gets_better(
    new_page, loop_server: Server, phantoms: dict[int, Phantom], series: dict[int, Series]
) -> None:
    companion = Companion(new_page(loop_server.url))
    before = held_out_click(companion, phantoms[HELD_OUT], series[HELD_OUT])
    for seed in LABELLED:
        companion.open(series[seed].study_uid)
        truth = phantoms[seed].objects[LABEL]
        k = phantoms[seed].middle(LABEL)
        for tool, path in (("b", corners(truth[:, :, k], k)), ("g", hatching(truth[:, :, k], k))):
            companion.key(tool)
            answer = companion.drag(path)
            assert answer.status == 200, answer.text
        assert dice(companion.overlay(LABEL)[:, :, k], truth[:, :, k]) >= DRAWN
        companion.save()
    ohif = companion.ohif
    ohif.options("train", "biosam2", SHORT)
    press(ohif, "Update Model", "POST")
    companion.page.get_by_text("Training: epoch").first.wait_for()
    wait_for(loop_server, "DONE")
    companion.page.get_by_text("The new version is served.").first.wait_for()
    stats = requests.get(f"{loop_server.url}/info/", timeout=LIMIT_S).json()["train_stats"]["biosam2"]
    assert stats["published"], stats["reason"]
    with companion.page.context.expect_page() as report:
        companion.page.get_by_role("link", name="Report").click()
    report.value.get_by_text("Dice").first.wait_for()
    # The only image without a label is offered, with the reason.
    with companion.page.expect_navigation():
        companion.press("sample")
    assert "Why this one: " in companion.dialogs[-1]
    assert companion.page.url.endswith(series[HELD_OUT].study_uid)
    assert held_out_click(companion, phantoms[HELD_OUT], series[HELD_OUT]) > before + 0.05


def held_out_click(companion: Companion, phantom: Phantom, series: Series) -> float:
    """Dice of one click, on the slice clicked on."""
    companion.open(series.study_uid)
    place = phantom.click(LABEL)
    answer = companion.click(place)
    assert answer.status == 200, answer.text
    return dice(answer.mask[:, :, place[2]], phantom.objects[LABEL][:, :, place[2]])


def corners(mask: np.ndarray, k: int) -> list[list[float]]:
    """Two corners of the box around a mask (I, J)."""
    places = np.argwhere(mask)
    return [[*map(float, places.min(0)), k], [*map(float, places.max(0)), k]]


def hatching(mask: np.ndarray, k: int) -> list[list[float]]:
    """A stroke to and fro over a convex mask (I, J), one pixel further each time."""
    path: list[list[float]] = []
    for j in np.flatnonzero(mask.any(axis=0)):
        inside = np.flatnonzero(mask[:, j])
        ends = [inside[0], inside[-1]]
        path += [[float(i), float(j), k] for i in (ends if j % 2 else ends[::-1])]
    return path
