import pytest
import torch

from lib.engine.builder import build_network
from lib.trainers.average import STEPS, Average
from lib.trainers.parameters import prepare
from tests.support.server import APP

NAME = "sam_mask_decoder.iou_token.weight"


@pytest.fixture
def network():
    network = build_network(APP / "model" / "biosam2_mini.yaml", 64)
    prepare(network, "decoder")
    return network


def token(network):
    return network.sam_mask_decoder.iou_token.weight


def test_it_follows_the_network_soon_at_first_and_slowly_later(network):
    with torch.no_grad():
        token(network).zero_()
        average = Average(network)
        token(network).fill_(1.0)
        # (1 + 0) / (10 + 0) of the old is kept at first, and 1 - 1 / STEPS in the end.
        average.update(0)
        assert float(average.values[NAME].mean()) == pytest.approx(0.9)
        average.values[NAME].zero_()
        average.update(100_000)
        assert float(average.values[NAME].mean()) == pytest.approx(1 / STEPS)


def test_what_is_not_trained_is_not_averaged(network):
    assert all(name.startswith("sam_mask_decoder.") for name in Average(network).values)


def test_it_stands_in_for_the_network_and_steps_back(network):
    with torch.no_grad():
        token(network).fill_(2.0)
        average = Average(network)
        token(network).fill_(5.0)
        with average.in_place():
            assert float(token(network).mean()) == 2.0
        assert float(token(network).mean()) == 5.0
