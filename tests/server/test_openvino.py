"""A server that goes over to OpenVINO while it answers, and conversions that end with it."""

import time

import psutil
import pytest

from tests.server.conftest import CONF
from tests.server.faults import LESION
from tests.support.client import LIMIT_S, Client

pytest.importorskip("openvino", reason="OpenVINO is not installed (requirements-openvino.txt)")
CONVERSION = "lib.engine.openvino_export"


def wait_for(condition, server):
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert server.alive, server.log[-4000:]
        assert time.monotonic() < give_up, server.log[-4000:]
        time.sleep(0.2)


def conversions(server) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(server.pid).children(recursive=True)
        if CONVERSION in child.cmdline()
    ]


def test_answers_are_the_same_before_and_after(start_server):
    fast = start_server({**CONF, "runtime": "auto"})
    prompts = {"foreground": [LESION]}
    before = Client(fast.url).segment("biosam2_point", "ct", prompts)
    wait_for(lambda: "OpenVINO computes" in fast.log, fast)
    after = Client(fast.url).segment("biosam2_point", "ct", prompts)
    both = before.mask.astype(bool), after.mask.astype(bool)
    assert 2 * (both[0] & both[1]).sum() / (both[0].sum() + both[1].sum()) > 0.97


def test_a_conversion_ends_with_its_server(start_server):
    # A large input takes long to convert: the server is up before the end of it.
    server = start_server({**CONF, "runtime": "openvino", "image_size": "1024"})
    wait_for(lambda: conversions(server), server)
    (conversion,) = conversions(server)
    conversion.parent().kill()
    conversion.wait(LIMIT_S)
    # What it had written has a temporary name still: it was killed before its end.
    assert not list(server.workdir.glob("model/openvino/[!.]*/"))
