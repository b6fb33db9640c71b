from __future__ import annotations

import threading

import pytest
import torch

from lib.engine.runtime import Cancellation, Runtime, raise_if_cancelled
from lib.errors import Cancelled


def test_work_stops_at_its_next_step_and_other_threads_go_on() -> None:
    cancellation, runtime, others = Cancellation(), Runtime(torch.device("cpu"), "fp32"), []

    def other() -> None:
        with runtime.step():
            others.append("done")

    with cancellation.applied():
        with runtime.step():
            cancellation.cancel()
        with pytest.raises(Cancelled, match="closed the connection"), runtime.step():
            raise AssertionError("no step begins")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert others == ["done"]
    raise_if_cancelled()
