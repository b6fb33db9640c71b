import time

import torch

from benchmarks.training_speed import NetworkClock, arguments, measure
from lib.engine.network import Network


class Worker:
    """Stands in for a network: its calls let a known time pass, and one calls another."""

    def __init__(self):
        self.now = 0.0

    def encode(self):
        self.now += 2.0

    def segment(self):
        self.now += 3.0
        self.encode()

    track = remember = encode


def test_time_inside_the_network_is_counted_once_and_the_rest_is_not(monkeypatch):
    network, clock = Worker(), NetworkClock(torch.device("cpu"))
    monkeypatch.setattr(time, "perf_counter", lambda: network.now)
    with clock.running(network):
        network.encode()
        network.segment()
        network.now += 100.0
    assert clock.seconds == 7.0
    network.encode()
    assert clock.seconds == 7.0


def test_real_steps_are_measured():
    row = measure(arguments(["--image-size", "64", "--batch", "2", "--steps", "1", "--device", "cpu"]))
    assert row["px"] == "64"
    assert float(row["images/s"]) > 0
    assert Network.encode.__name__ == "encode"
