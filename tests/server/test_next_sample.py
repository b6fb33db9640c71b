"""Next sample as OHIF, 3D Slicer and QuPath ask for it, and two annotators who ask at once."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelUtils
from PIL import Image

from lib.settings import STRATEGIES
from tests.support.client import LIMIT_S, Client
from tests.support.server import Server, copy_model_folder

WIDTH, HEIGHT = 40, 28
CASES = [f"case{number:03}" for number in range(240)]
# What viewers send beside the body; QuPath's HTTP client says nothing of its content.
OHIF_HEADERS = {"Content-Type": "application/json;charset=utf-8", "User-Agent": "Mozilla/5.0 Firefox/128.0"}
QUPATH_HEADERS = {"User-Agent": "Java-http-client/17.0.9"}
WHY = {"id", "path", "score", "rank", "strategy", "why", "slice"}


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server where ``random`` means the last by name, which shows."""
    workdir = tmp_path_factory.mktemp("next_sample")
    studies = workdir / "studies"
    studies.mkdir()
    rng = np.random.default_rng(0)
    for name in CASES:
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)).save(studies / f"{name}.png")
    conf = {"model_dir": str(copy_model_folder(workdir / "model")), "strategy": "last"}
    server = Server(studies, workdir, conf)
    yield server.start()
    server.stop()


@pytest.fixture
def slicer(own_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MONAILabelClient:
    """The client class of Slicer's extension."""
    receive = MONAILabelUtils.send_response

    def receive_and_close(connection: HTTPConnection, *others: Any) -> Any:
        # The class leaves its connections open, which Python warns of.
        with closing(connection):
            return receive(connection, *others)

    monkeypatch.setattr(MONAILabelUtils, "send_response", staticmethod(receive_and_close))
    return MONAILabelClient(own_server.url, tmpdir=str(tmp_path), client_id="anna")


def post(
    server: Server, strategy: str, body: Any, headers: dict[str, str], address: str = "127.0.0.1"
) -> tuple[int, dict[str, Any]]:
    """POST /activelearning/{strategy} with these headers and no others, from an address of this machine."""
    assert server.alive, server.log[-4000:]
    netloc = urlsplit(server.url).netloc
    with closing(HTTPConnection(netloc, timeout=LIMIT_S, source_address=(address, 0))) as connection:
        connection.request("POST", f"/activelearning/{strategy}", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_info_lists_the_strategies_and_says_what_random_means(own_server: Server) -> None:
    strategies = Client(own_server.url).info()["strategies"]
    assert list(strategies) == list(STRATEGIES)
    assert strategies["random"]["description"] == "The last image by name (--conf strategy last)"


def test_ohif_asks_for_random_and_gets_what_the_server_is_set_to(own_server: Server) -> None:
    status, answer = post(own_server, "random", {}, OHIF_HEADERS)
    assert status == 200
    assert set(answer) >= WHY
    assert (answer["id"], answer["strategy"], answer["rank"]) == ("case239", "last", 0)
    assert answer["path"] == str(own_server.studies / "case239.png")
    # It says nothing of who it is, and its button means the next one.
    assert post(own_server, "random", {}, OHIF_HEADERS)[1]["id"] == "case238"


def test_slicer_keeps_its_case_until_the_label_is_saved(
    own_server: Server, slicer: MONAILabelClient, tmp_path: Path
) -> None:
    options = slicer.info()["strategies"]["first"]["config"]
    sample = slicer.next_sample("first", options)
    assert set(sample) >= WHY
    assert (sample["id"], sample["strategy"]) == ("case000", "first")
    assert Path(sample["path"]).is_file()
    assert slicer.next_sample("last", options)["id"] == "case000"
    other = {"client_id": "user-abc"}
    assert post(own_server, "first", other, OHIF_HEADERS)[1]["id"] == "case001"
    label = tmp_path / "label.png"
    Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)).save(label)
    slicer.save_label("case000", str(label), "original", {"label_info": [{"name": "cell", "idx": 1}]})
    assert slicer.next_sample("first", options)["id"] == "case000"
    slicer.save_label("case000", str(label), "", {"label_info": [{"name": "cell", "idx": 1}]})
    assert slicer.next_sample("first", options)["id"] == "case002"
    assert slicer.next_sample("first", {"skip": True})["id"] == "case003"
    # What was passed over is there for others, what was labelled for nobody.
    third = {"client_id": "user-def"}
    assert post(own_server, "first", third, OHIF_HEADERS)[1]["id"] == "case002"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has all of 127.0.0.0/8")
def test_two_people_with_a_fresh_slicer_get_two_cases(own_server: Server) -> None:
    fresh = {"client_id": "user-xyz"}
    asked = [post(own_server, "last", fresh, {}, address) for address in ("127.0.0.2", "127.0.0.3") * 2]
    assert [status for status, _ in asked] == [200] * 4
    assert len({answer["id"] for _, answer in asked}) == 4


def test_qupath_gets_a_picture_and_the_next_patch_of_the_one_that_is_open(own_server: Server) -> None:
    body = {"image": "", "patch_size": [16, 16], "image_size": [0, 0]}
    status, answer = post(own_server, "first", body, QUPATH_HEADERS)
    assert status == 200
    assert answer["id"] == "case004"
    assert Path(answer["path"]).is_file()
    assert "bbox" not in answer
    body = {"image": "case004", "patch_size": [16, 16], "image_size": [WIDTH, HEIGHT]}
    for _ in range(5):
        status, answer = post(own_server, "first", body, QUPATH_HEADERS)
        assert (status, answer["id"]) == (200, "case004")
        x, y, width, height = answer["bbox"]
        assert (width, height) == (16, 16)
        assert 0 <= x <= WIDTH - 16
        assert 0 <= y <= HEIGHT - 16


def test_what_cannot_be_answered_is_refused_with_a_reason(own_server: Server) -> None:
    status, answer = post(own_server, "best", {}, OHIF_HEADERS)
    assert status == 404
    assert f"available: {', '.join(STRATEGIES)}" in answer["detail"]
    status, answer = post(own_server, "first", {"image": "nowhere"}, QUPATH_HEADERS)
    assert (status, "nowhere" in answer["detail"]) == (404, True)
    body = {"image": "case004", "patch_size": [16], "image_size": [WIDTH, HEIGHT]}
    status, answer = post(own_server, "first", body, QUPATH_HEADERS)
    assert (status, "patch_size" in answer["detail"]) == (400, True)
    assert post(own_server, "first", [], OHIF_HEADERS)[0] == 400


def test_two_clients_who_ask_and_pass_over_200_times_never_hold_one_case_at_one_time(
    own_server: Server,
) -> None:
    def work(client: str) -> list[tuple[str, float, float]]:
        """Cases with the moment of their answer and that of the next question: then they were held."""
        held = []
        body = {"client_id": client, "skip": True}
        status, answer = post(own_server, "random", body, OHIF_HEADERS)
        for _ in range(99):
            assert status == 200
            given = time.monotonic()
            assert post(own_server, "random", {"client_id": client}, OHIF_HEADERS)[1]["id"] == answer["id"]
            held.append((answer["id"], given, time.monotonic()))
            status, answer = post(own_server, "random", body, OHIF_HEADERS)
        return held

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(work, ("ann", "bob"))
    for (case, start, end), (same, begin, stop) in product(one, other):
        assert case != same or end < begin or stop < start


def test_two_clients_who_ask_200_times_at_once_get_200_cases(own_server: Server) -> None:
    def work(browser: str) -> list[str]:
        headers = {**OHIF_HEADERS, "User-Agent": browser}
        return [post(own_server, "random", {}, headers)[1]["id"] for _ in range(100)]

    with ThreadPoolExecutor(2) as threads:
        cases = [case for given in threads.map(work, ("Firefox", "Chrome")) for case in given]
    assert len(cases) == 200
    assert max(Counter(cases).values()) == 1


def test_when_all_is_given_out_the_answer_is_empty_and_the_log_says_why(own_server: Server) -> None:
    headers = {**OHIF_HEADERS, "User-Agent": "Opera"}
    taken = [post(own_server, "first", {}, headers)[1].get("id") for _ in range(60)]
    # A browser that has taken all that was left gets its own again.
    assert None not in taken
    assert len(set(taken)) < 60
    assert post(own_server, "first", {"client_id": "late"}, OHIF_HEADERS) == (200, {})
    assert "without a final label are with annotators" in own_server.log
    # The labels of others are not what a server of labels forgets.
    listed = requests.get(f"{own_server.url}/datastore/", timeout=LIMIT_S).json()
    assert (listed["total"], listed["completed"]) == (240, 1)
