from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from lib.scoring import process

# A process that gives way, and says what threads are that it starts, and the one for what is urgent.
_SCRIPT = """
import json, os, threading, torch
from concurrent.futures import ThreadPoolExecutor
from lib.scoring.process import give_way
def look():
    tid = threading.get_native_id()
    return [os.getpriority(os.PRIO_PROCESS, tid), os.sched_getscheduler(tid)]
urgent = give_way(0)
later = ThreadPoolExecutor(1)
found = [look(), later.submit(look).result(), urgent.submit(look).result(), torch.get_num_threads()]
print(json.dumps(found))
"""


def test_the_process_of_a_scoring_is_told_from_the_server(monkeypatch):
    assert not process.is_worker_process()
    spec = SimpleNamespace(name="monailabel.interfaces.utils.app")
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    assert process.is_worker_process()
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    assert not process.is_worker_process()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities for threads")
def test_a_scoring_process_takes_what_nobody_wants_but_for_what_others_wait_for():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    lowest = [19, os.SCHED_IDLE]
    threads = max(1, (os.cpu_count() or 1) // 4)
    urgent = [max(10, psutil.Process().nice()), os.sched_getscheduler(0)]
    assert json.loads(done.stdout) == [lowest, lowest, urgent, threads]


def test_the_threads_that_the_settings_name_are_used(monkeypatch):
    monkeypatch.setattr(process, "lower_priority", lambda pid: None)
    monkeypatch.setattr(process, "_set_idle_priority", lambda: None)
    before = torch.get_num_threads()
    try:
        process.give_way(3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has classes of priority and no nice values")
def test_another_process_can_be_lowered_and_one_that_has_ended_is_no_error():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process.lower_priority(child.pid)
    assert psutil.Process(child.pid).nice() == max(10, psutil.Process().nice())
    child.communicate(b"\n")
    process.lower_priority(child.pid)
