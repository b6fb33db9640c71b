from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from monailabel.datastore.local import LocalDatastore
from monailabel.endpoints import activelearning
from monailabel.utils.async_tasks import utils

from lib.activelearning.strategy import all_strategies
from lib.errors import BusyError
from lib.scoring.registry import ALL, all_methods
from lib.scoring.store import ScoreStore
from lib.server import active_learning
from lib.server.api_keys import Role, User
from tests.unit.scoring.conftest import SETTINGS


class App:
    """What MONAI Label's own code asks of the app."""

    def __init__(self, datastore: LocalDatastore, scores: ScoreStore):
        self._datastore = datastore
        self.strategies = all_strategies("random", 30, scores)

    def info(self) -> dict[str, Any]:
        return {}

    def datastore(self) -> LocalDatastore:
        return self._datastore

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self.strategies[request["strategy"]](request, self._datastore)
        return {} if answer is None else {**answer, "path": self._datastore.get_image_uri(answer["id"])}


@pytest.fixture
def app(datastore: LocalDatastore, scores: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> App:
    found = App(datastore, scores)
    monkeypatch.setattr(activelearning, "app_instance", lambda: found)
    return found


@pytest.fixture
def client(app: App, serve: Callable[..., TestClient]) -> TestClient:
    return serve(active_learning.routes, strategies=app.strategies)


def at(client: TestClient, address: str) -> TestClient:
    """A client of the same server on another machine."""
    return TestClient(client.app, client=(address, 50000))


def test_the_answer_has_what_the_strategy_and_what_monai_label_say(
    client: TestClient, datastore: LocalDatastore
) -> None:
    answer = client.post("/activelearning/first", json={"client_id": "ann"}).json()
    assert answer["path"] == datastore.get_image_uri("a")
    assert answer["name"] == "a.png"
    chosen = {key: answer[key] for key in ("id", "score", "rank", "strategy", "why", "slice")}
    assert chosen == {
        "id": "a",
        "score": None,
        "rank": 0,
        "strategy": "first",
        "why": "first by name of 3 images",
        "slice": None,
    }
    assert "choice" not in answer
    # MONAI Label's note of who asked stays where it was.
    assert datastore.get_image_info("a")["strategy"]["first"]["client_id"] == "ann"
    # Also where that note stands in the image's info already.
    assert client.post("/activelearning/first", json={"client_id": "ann"}).json()["strategy"] == "first"


def test_an_unknown_strategy_is_404_and_names_those_there_are(client: TestClient) -> None:
    answer = client.post("/activelearning/best", json={})
    assert answer.status_code == 404
    assert answer.json()["detail"] == (
        "Unknown strategy 'best' (available: random, first, last, diversity, uncertainty, hybrid, "
        "least_confident)"
    )


@pytest.mark.parametrize("body", [None, {}])
def test_a_body_is_not_needed(client: TestClient, body: dict[str, Any] | None) -> None:
    assert client.post("/activelearning/last", json=body).json()["id"] == "c"


@pytest.mark.parametrize("body", [[1], "first", 3])
def test_a_body_that_is_no_object_is_refused(client: TestClient, body: Any) -> None:
    assert client.post("/activelearning/last", json=body).status_code == 400


def test_params_do_not_replace_the_strategy_of_the_address(client: TestClient) -> None:
    assert client.post("/activelearning/last", json={"strategy": "first"}).json()["strategy"] == "last"


def test_browsers_on_one_machine_are_told_apart_and_cannot_pose_as_each_other(client: TestClient) -> None:
    def ask(browser: str) -> str | None:
        body = {"annotator": "the other"}
        answer = client.post("/activelearning/first", json=body, headers={"user-agent": browser})
        return answer.json().get("id")

    assert [ask("A"), ask("B"), ask("A"), ask("B"), ask("A"), ask("C")] == ["a", "b", "c", "b", "a", None]


def test_everybodys_name_of_slicer_is_nobodys(client: TestClient) -> None:
    def ask(machine: str, name: str = "user-xyz") -> str | None:
        """As 3D Slicer, which names no browser."""
        body = {"client_id": name}
        answer = at(client, machine).post("/activelearning/first", json=body, headers={"user-agent": ""})
        return answer.json().get("id")

    assert [ask("10.0.0.2"), ask("10.0.0.3"), ask("10.0.0.2"), ask("10.0.0.3")] == ["a", "b", "c", "b"]
    assert ask("10.0.0.4") is None


def test_where_people_sign_in_their_name_counts_and_not_their_viewers(
    app: App, datastore: LocalDatastore, serve: Callable[..., TestClient]
) -> None:
    class Person:
        """Everything that a request sends is this person's."""

        is_on = True

        async def user(self, connection: Any) -> User:
            return User(connection.headers["x-person"], Role.USER)

    client = serve(active_learning.routes, strategies=app.strategies, authenticator=Person())

    def ask(person: str, **body: str) -> str | None:
        return client.post("/activelearning/first", json=body, headers={"x-person": person}).json().get("id")

    for body in ({"client_id": "user-xyz"}, {"client_id": "laptop"}, {}):
        assert [ask("ann", **body), ask("bob", **body)] == ["a", "b"]
    assert datastore.get_image_info("a")["strategy"]["first"]["client_id"] == "ann"


@pytest.mark.parametrize("body", [{"client_id": "ann"}, {}])
def test_an_image_that_cannot_be_had_is_passed_over_and_what_else_was_given_stays(
    client: TestClient, datastore: LocalDatastore, monkeypatch: pytest.MonkeyPatch, body: dict[str, str]
) -> None:
    find = datastore.get_image_uri

    def download(image_id: str) -> str:
        if image_id == "b":
            raise BusyError("the store sent 3 of the 4 files of b: try again")
        return str(find(image_id))

    monkeypatch.setattr(datastore, "get_image_uri", download)
    other = {"client_id": "bob"} if body else {}
    assert client.post("/activelearning/first", json=other).json()["id"] == "a"
    refused = client.post("/activelearning/first", json=body)
    assert (refused.status_code, "3 of the 4" in refused.json()["detail"]) == (503, True)
    assert client.post("/activelearning/first", json=body).json()["id"] == "c"
    # It is nobody's now: who comes next is told as well; and the first one is with whom it was.
    assert client.post("/activelearning/first", json={"client_id": "eve"}).status_code == 503


def test_all_in_work_is_answered_as_an_empty_pool_is(client: TestClient) -> None:
    for number in range(3):
        assert client.post("/activelearning/random", json={"client_id": str(number)}).json()["id"]
    answer = client.post("/activelearning/random", json={"client_id": "late"})
    assert (answer.status_code, answer.json()) == (200, {})


def test_what_is_wrong_with_a_request_is_said(client: TestClient) -> None:
    gone = client.post("/activelearning/first", json={"image": "nowhere"})
    assert (gone.status_code, "nowhere" in gone.json()["detail"]) == (404, True)
    wrong = client.post(
        "/activelearning/first", json={"image": "a", "patch_size": "big", "image_size": [9, 9]}
    )
    assert (wrong.status_code, "patch_size" in wrong.json()["detail"]) == (400, True)


@pytest.fixture
def started(monkeypatch) -> list:
    """What was started, instead of starting it."""
    calls = []

    def start(method, params, enqueue):
        calls.append((method, params))
        return None if params.get("again") and not enqueue else {"id": "1", "status": "SUBMITTED"}

    monkeypatch.setattr(active_learning, "start", start)
    return calls


@pytest.fixture
def scoring(engines, started, serve) -> TestClient:
    return serve(active_learning.routes, scoring_methods=all_methods(SETTINGS, engines))


def test_a_scoring_is_started_with_its_options(scoring, started):
    answer = scoring.post("/scoring/biosam2_uncertainty", json={"slices": 2})
    assert answer.json() == {"id": "1", "status": "SUBMITTED"}
    assert started == [("biosam2_uncertainty", {"slices": 2})]
    assert scoring.post("/scoring/dice").status_code == 200
    assert started[1] == ("dice", {})


def test_all_of_them_are_one_process(scoring, started):
    answer = scoring.post("/scoring/")
    assert answer.json() == {ALL: {"result": {"id": "1", "status": "SUBMITTED"}, "detail": None}}
    assert started == [(ALL, {})]
    # They wait for the one that runs.
    assert scoring.post("/scoring/", json={"again": True}).status_code == 200


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
def test_what_is_wrong_is_said(scoring, started, path, params, status, word):
    answer = scoring.post(path, json=params)
    assert answer.status_code == status
    assert word in answer.json()["detail"]


def test_one_stop_ends_the_one_that_runs_and_all_that_wait(scoring, monkeypatch):
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
    monkeypatch.setattr(
        active_learning.monailabel_scoring, "stop", lambda: {**listed[0], "status": "STOPPED"}
    )
    assert scoring.delete("/scoring/").json() == {"id": "0", "status": "STOPPED"}
    goes_on.set()
    queue.shutdown()
    assert waiting[1].cancelled()
    assert ran == []
    assert (listed[1]["status"], len(listed[1]["end_ts"])) == ("STOPPED", 19)
    # What is started next is not held up by them.
    assert utils.background_executors["scoring"].submit(lambda: "next").result() == "next"


def test_params_of_a_scoring_that_are_no_table_are_refused(scoring):
    assert scoring.post("/scoring/dice", json=[1]).status_code == 400
