"""A bad request gets a 4xx with a reason, and leaves the server as it was."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Iterator

import pytest

from tests.server import faults
from tests.server.faults import Fault
from tests.support import studies
from tests.support.client import OHIF, Answer, Client
from tests.support.server import STOP_LIMIT_S, Server

# A reason of fewer letters names no value, no limit and no remedy.
SHORTEST_REASON = 20


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


@contextlib.contextmanager
def _left_as_it_was(client: Client, server: Server) -> Iterator[None]:
    """Masks, models, datastore and temporary files are the same afterwards."""
    prompts = {"foreground": [faults.LESION], "background": [], **OHIF}

    def state() -> tuple[object, ...]:
        tasks = ("biosam2_point", "biosam2_propagate")
        masks = [client.segment(task, "ct", prompts, query={"output": "image"}).body for task in tasks]
        return masks, client.info()["models"], studies.tree_digest(server.studies)

    before, files = state(), set(server.temporary.rglob("*"))
    yield
    assert state() == before
    assert server.alive
    # An answer's file goes after the client has it.
    give_up = time.monotonic() + STOP_LIMIT_S
    while (more := set(server.temporary.rglob("*")) - files) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert not more, "temporary files are left behind"


@pytest.mark.parametrize("task", faults.TASKS)
def test_bad_requests_are_refused_with_a_reason_and_change_nothing(
    client: Client, server: Server, task: str
) -> None:
    cases, wrong = [fault for fault in faults.ALL if task in fault.tasks], []
    assert len(cases) >= 55
    with _left_as_it_was(client, server):
        for fault in cases:
            try:
                _assert_refused(_send(client, task, fault), fault.says, fault.status)
            except AssertionError as error:
                wrong.append(f"{fault.name}: {error}")
    assert not wrong, "\n".join(wrong)


def test_fifty_megabytes_of_params_are_refused(client: Client) -> None:
    _assert_refused(_send(client, "biosam2_point", faults.LARGE), faults.LARGE.says, None)


def test_an_unknown_model_is_refused_with_a_reason(client: Client) -> None:
    for name in ("no_such_model", "biosam2", "sam_2d.", "..%2fbiosam2_point"):
        answer = client.infer(name, "ct", {"foreground": [faults.LESION]})
        assert 400 <= answer.status < 500, name
        if name == "no_such_model":
            assert name in answer.detail
            assert "biosam2_point" in answer.detail, "the reason names the models that there are"


def test_no_value_of_any_type_breaks_the_server(client: Client) -> None:
    # The two parsers of requests take turns, so that each gets every option and every value.
    turns = itertools.cycle([("biosam2_point", "foreground"), ("biosam2_multi", "lesion")])
    for option in faults.OPTION_NAMES:
        for value in faults.VALUES:
            task, clicks = next(turns)
            answer = client.infer(task, "grey", {clicks: [[77, 22]], option: value})
            assert answer.status < 500, f"{task} {option}={value!r}: {answer.status}"
            if answer.status != 200:
                assert len(answer.detail) >= SHORTEST_REASON, f"{option}={value!r}: {answer.detail}"
        next(turns)
