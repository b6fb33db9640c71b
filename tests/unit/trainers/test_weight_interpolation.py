import pytest
import torch

from lib.engine.builder import build_network
from lib.trainers.weight_interpolation import SHARES, blend
from tests.support.server import APP

NAME = "sam_mask_decoder.iou_token.weight"


@pytest.fixture(scope="module")
def network():
    return build_network(APP / "model" / "biosam2_mini.yaml", 64)


def ends(network):
    shape = network.sam_mask_decoder.iou_token.weight.shape
    return {NAME: torch.zeros(shape)}, {NAME: torch.ones(shape)}


@pytest.mark.parametrize("best", SHARES)
def test_the_best_on_the_way_is_put_in(network, best):
    def worth(mixed):
        return True, -abs(float(mixed.sam_mask_decoder.iou_token.weight.mean()) - best)

    assert blend(network, *ends(network), worth) == best
    assert float(network.sam_mask_decoder.iou_token.weight.mean()) == pytest.approx(best)


def test_what_would_be_published_goes_before_what_scores_more(network):
    def worth(mixed):
        share = float(mixed.sam_mask_decoder.iou_token.weight.mean())
        return share < 0.5, share

    assert blend(network, *ends(network), worth) == min(SHARES)


def test_of_equals_the_one_that_learned_most(network):
    assert blend(network, *ends(network), lambda mixed: (True, 0.5)) == 1.0
