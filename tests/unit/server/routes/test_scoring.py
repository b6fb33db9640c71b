from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from monailabel.utils.async_tasks import utils

from lib.scoring.registry import ALL, all_methods
from lib.server.routes import scoring as endpoints
from tests.unit.scoring.conftest import SETTINGS


@pytest.fixture
def started(monkeypatch) -> list:
    """What was started, instead of starting it."""
    calls = []

    def start(method, params, enqueue):
        calls.append((method, params))
        return None if params.get("again") and not enqueue else {"id": "1", "status": "SUBMITTED"}

    monkeypatch.setattr(endpoints, "start", start)
    return calls


@pytest.fixture
def client(engines, started, serve) -> TestClient:
    return serve(endpoints.ScoringRoutes(all_methods(SETTINGS, engines)).router())


def test_a_scoring_is_started_with_its_options(client, started):
    answer = client.post("/scoring/biosam2_uncertainty", json={"slices": 2})
    assert answer.json() == {"id": "1", "status": "SUBMITTED"}
    assert started == [("biosam2_uncertainty", {"slices": 2})]
    assert client.post("/scoring/dice").status_code == 200
    assert started[1] == ("dice", {})


def test_all_of_them_are_one_process(client, started):
    answer = client.post("/scoring/")
    assert answer.json() == {ALL: {"result": {"id": "1", "status": "SUBMITTED"}, "detail": None}}
    assert started == [(ALL, {})]
    # They wait for the one that runs.
    assert client.post("/scoring/", json={"again": True}).status_code == 200


@pytest.mark.parametrize(
    ("path", "params", "status", "word"),
    [
        ("/scoring/other", {}, 404, "available: annotation_stats, dice, nsd, biosam2_uncertainty"),
        ("/scoring/biosam2_uncertainty", {"slices": 0}, 400, "slices is 0"),
        ("/scoring/biosam2_uncertainty", {"speed": 1}, 400, "Unknown option 'speed'"),
        ("/scoring/dice", {"slices": 2}, 400, "Unknown option 'slices'"),
        ("/scoring/dice", {"device": "cuda:9"}, 400, "cuda:9"),
        ("/scoring/dice", {"method": "nsd"}, 400, "the address 'dice'"),
        ("/scoring/", {"max_minutes": -1}, 400, "max_minutes"),
        ("/scoring/dice", {"again": True}, 429, "is running"),
    ],
)
def test_what_is_wrong_is_said(client, started, path, params, status, word):
    answer = client.post(path, json=params)
    assert answer.status_code == status
    assert word in answer.json()["detail"]


def test_one_stop_ends_the_one_that_runs_and_all_that_wait(client, monkeypatch):
    running, goes_on, ran = threading.Event(), threading.Event(), []

    def run():
        running.set()
        goes_on.wait()

    queue = ThreadPoolExecutor(1)
    waiting = [queue.submit(run), queue.submit(ran.append, 1)]
    assert running.wait(30)
    listed = [{"id": "0", "status": "RUNNING"}, {"id": "1", "status": "SUBMITTED"}]
    monkeypatch.setitem(utils.background_executors, "scoring", queue)
    monkeypatch.setitem(utils.background_tasks, "scoring", listed)
    monkeypatch.setattr(endpoints.monailabel_scoring, "stop", lambda: {**listed[0], "status": "STOPPED"})
    assert client.delete("/scoring/").json() == {"id": "0", "status": "STOPPED"}
    goes_on.set()
    queue.shutdown()
    assert waiting[1].cancelled()
    assert ran == []
    assert (listed[1]["status"], len(listed[1]["end_ts"])) == ("STOPPED", 19)
    # What is started next is not held up by them.
    assert utils.background_executors["scoring"].submit(lambda: "next").result() == "next"


def test_params_that_are_no_table_are_refused(client):
    assert client.post("/scoring/dice", json=[1]).status_code == 400
