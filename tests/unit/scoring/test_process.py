from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from lib.scoring import process

# A process that lowers its own priority and says what it then is, and what a thread that it starts is.
_SCRIPT = """
import json, os, threading, psutil
from lib.scoring.process import give_way
import torch
give_way(0)
seen = {}
def look():
    tid = threading.get_native_id()
    seen["nice"] = os.getpriority(os.PRIO_PROCESS, tid)
    seen["policy"] = os.sched_getscheduler(tid)
thread = threading.Thread(target=look); thread.start(); thread.join()
print(json.dumps([seen, torch.get_num_threads()]))
"""


def test_the_process_of_a_scoring_is_told_from_the_server(monkeypatch):
    assert not process.is_own_process()
    spec = SimpleNamespace(name="monailabel.interfaces.utils.app")
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    assert process.is_own_process()
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    assert not process.is_own_process()


def test_a_scoring_process_and_its_threads_take_what_nobody_else_wants():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    if sys.platform == "linux":
        expected = {"nice": 19, "policy": os.SCHED_IDLE}
        threads = max(1, (os.cpu_count() or 1) // 4)
        assert (
            done.stdout.strip()
            == f'[{{"nice": {expected["nice"]}, "policy": {expected["policy"]}}}, {threads}]'
        )


def test_the_threads_that_the_settings_name_are_used(monkeypatch):
    monkeypatch.setattr(process, "lower_priority", lambda pid: None)
    before = torch.get_num_threads()
    try:
        process.give_way(3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="SCHED_IDLE is Linux's")
def test_another_process_can_be_lowered_and_one_that_has_ended_is_no_error():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process.lower_priority(child.pid)
    assert psutil.Process(child.pid).nice() == 19
    assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
    child.communicate(b"\n")
    process.lower_priority(child.pid)
