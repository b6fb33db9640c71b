"""A bad request gets a 4xx with a reason, and leaves the server as it was."""

from __future__ import annotations

import re
import time

import pytest

from tests.server import faults
from tests.server.faults import Fault
from tests.support import studies
from tests.support.client import OHIF, Answer, Client
from tests.support.server import STOP_LIMIT_S, Server

# A reason of fewer letters names no value, no limit and no remedy.
SHORTEST_REASON = 20
CASES = list(faults.cases())


def _send(client: Client, task: str, fault: Fault) -> Answer:
    raw = fault.raw() if fault.raw else None
    return client.infer(task, fault.image, fault.params(task), raw_params=raw, query=fault.query)


def _assert_refused(answer: Answer, says: str, status: int | None) -> None:
    assert 400 <= answer.status < 500, f"{answer.status}: {answer.body[:500]!r}"
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.detail) >= SHORTEST_REASON
    assert re.search(says, answer.detail, re.IGNORECASE | re.DOTALL), answer.detail
    if status is not None:
        assert answer.status == status, answer.detail


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 64


@pytest.mark.parametrize(
    ("task", "fault"), CASES, ids=[f"{task}-{fault.name.replace(' ', '_')}" for task, fault in CASES]
)
def test_a_bad_request_is_refused_with_a_reason(client: Client, task: str, fault: Fault) -> None:
    _assert_refused(_send(client, task, fault), fault.says, fault.status)


def test_fifty_megabytes_of_params_are_refused(client: Client) -> None:
    _assert_refused(_send(client, "biosam2_point", faults.LARGE), faults.LARGE.says, None)


@pytest.mark.parametrize("name", ["no_such_model", "biosam2", "sam_2d.", "..%2fbiosam2_point"])
def test_an_unknown_model_is_refused_with_a_reason(client: Client, name: str) -> None:
    answer = client.infer(name, "ct", {"foreground": [faults.LESION]})
    assert 400 <= answer.status < 500
    if name == "no_such_model":
        assert name in answer.detail
        assert "biosam2_point" in answer.detail, "the reason names the models that there are"


@pytest.mark.parametrize("option", faults.OPTION_NAMES)
def test_no_value_of_any_type_breaks_the_server(client: Client, option: str) -> None:
    for task in ("biosam2_point", "biosam2_multi"):
        prompts = {"lesion" if task == "biosam2_multi" else "foreground": [[77, 22]]}
        for value in faults.VALUES:
            answer = client.infer(task, "grey", {**prompts, option: value})
            assert answer.status < 500, f"{option}={value!r}: {answer.status}"
            if answer.status != 200:
                assert len(answer.detail) >= SHORTEST_REASON, f"{option}={value!r}: {answer.detail}"


def test_after_all_of_them_the_server_is_as_it_was(client: Client, server: Server) -> None:
    """Sends every bad request again between two good ones, so that it holds in any order of the tests."""
    prompts = {"foreground": [faults.LESION], "background": [], **OHIF}
    tasks = ("biosam2_point", "biosam2_propagate")
    before = [client.segment(task, "ct", prompts, query={"output": "image"}).body for task in tasks]
    info, files = client.info()["models"], studies.tree_digest(server.studies)
    left = set(server.temporary.rglob("*"))
    statuses = {_send(client, task, fault).status // 100 for task, fault in CASES}
    after = [client.segment(task, "ct", prompts, query={"output": "image"}).body for task in tasks]
    assert statuses == {4}
    assert after == before
    assert client.info()["models"] == info
    assert studies.tree_digest(server.studies) == files
    assert server.alive
    # An answer's file goes after the client has it.
    give_up = time.monotonic() + STOP_LIMIT_S
    while (more := set(server.temporary.rglob("*")) - left) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert not more, "temporary files are left behind"
