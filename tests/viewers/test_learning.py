"""Next sample, training and its end, from OHIF's panel."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
import requests

from tests.support.server import Server
from tests.viewers.cases import Case
from tests.viewers.ohif import LIMIT_MS, Exchange, Ohif
from tests.viewers.serving import serving_alone

LABELLED = ("top_first", "bottom_first")
LIMIT_S = 120
# Nothing is published: both tests use the same server.
SHORT = {
    "max_epochs": 1,
    "steps_per_epoch": 2,
    "image_size": 64,
    "batch_size": 2,
    "val_objects": 2,
    "min_gain": 1,
}
LONG = {**SHORT, "max_epochs": 10_000}


@pytest.fixture(scope="module")
def server(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a store of its own: other tests label the shared one's series."""
    folders = [case.series.files[0].parent for case in cases.values()]
    with serving_alone(folders, tmp_path_factory.mktemp("learning")) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def labels(server: Server, cases: dict[str, Case]) -> None:
    """Labels of two of the series, as MONAI Label's client for OHIF sends them."""
    for name in LABELLED:
        case = cases[name]
        objects = enumerate(case.phantom.objects.items(), start=1)
        voxels, info = np.zeros(case.truth.shape, np.uint8), []
        for value, (label, mask) in objects:
            voxels[mask] = value
            info.append({"name": label, "idx": value})
        answer = requests.put(
            f"{server.url}/datastore/label",
            params={"image": case.series.series_uid},
            data={"params": json.dumps({"label_info": info})},
            files={"label": ("label.bin", voxels.tobytes(order="F"))},
            timeout=LIMIT_S,
        )
        assert answer.status_code == 200, answer.text


def test_the_next_sample_is_one_without_a_label_and_opens(ohif: Ohif, cases: dict[str, Case]) -> None:
    ohif.open(cases["top_first"].series.study_uid)
    ohif.connect()
    button = ohif.unfold("Active Learning").get_by_role("button", name="Next Sample")
    exchange = ohif.exchange("/activelearning/", "POST", button.click)
    offered = json.loads(exchange.body)
    case = next(case for case in cases.values() if case.series.series_uid == offered["id"])
    assert case.name not in LABELLED
    ohif.screenshot("next_sample")
    ohif.page.once("dialog", lambda dialog: dialog.accept())
    with ohif.page.expect_navigation():
        ohif.page.get_by_role("button", name="OK").click()
    assert ohif.page.url.endswith(case.series.study_uid)
    ohif.wait()
    assert np.array_equal(ohif.image(), case.phantom.image)


def test_a_training_starts_stops_and_ends(ohif: Ohif, cases: dict[str, Case], server: Server) -> None:
    ohif.open(cases["top_first"].series.study_uid)
    ohif.connect()
    ohif.options("train", "biosam2", LONG)
    started = press(ohif, "Update Model", "POST")
    assert started.params["biosam2"]["max_epochs"] == LONG["max_epochs"]
    wait_for(server, "RUNNING")
    press(ohif, "Stop Training", "DELETE")
    ohif.tab("Active Learning").get_by_role("button", name="Update Model").wait_for()
    assert task(server)["status"] not in ("RUNNING", "DONE")

    ohif.options("train", "biosam2", SHORT)
    press(ohif, "Update Model", "POST")
    wait_for(server, "DONE")
    stats = requests.get(f"{server.url}/info/", timeout=LIMIT_S).json()["train_stats"]["biosam2"]
    assert stats["images"] == {"train": 1, "val": 1}
    assert stats["left_out"] == []
    assert stats["epoch"] == 1
    # The panel shows it to whoever connects.
    ohif.open(cases["top_first"].series.study_uid)
    ohif.connect()
    accuracy = round(100 * stats["best_metric"])
    ohif.unfold("Active Learning").get_by_title(f"{accuracy}% is current best metric").wait_for()


def press(ohif: Ohif, name: str, method: str) -> Exchange:
    """Presses a button of Active Learning, and waits for the answer."""
    button = ohif.unfold("Active Learning").get_by_role("button", name=name)
    exchange = ohif.exchange("/train/", method, lambda: button.click(timeout=LIMIT_MS))
    assert exchange.status == 200, exchange.body
    return exchange


def task(server: Server) -> dict[str, object]:
    """The last training as MONAI Label has it."""
    found: dict[str, object] = requests.get(f"{server.url}/train/", timeout=LIMIT_S).json()
    return found


def wait_for(server: Server, status: str) -> None:
    """Waits until the training has a status, and fails when it ends with another."""
    give_up = time.monotonic() + LIMIT_S
    while (found := task(server))["status"] != status:
        assert found["status"] in ("SUBMITTED", "RUNNING"), found["details"]
        assert time.monotonic() < give_up, f"the training is {found['status']} after {LIMIT_S} s"
        time.sleep(0.3)
