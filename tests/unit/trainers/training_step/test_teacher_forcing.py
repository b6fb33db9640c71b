"""On the bundled network: what a step teaches when it is told whether the object is there."""

import pytest
import torch

from lib.engine.builder import build_network
from lib.engine.memory import MemoryBank
from lib.engine.network import NetworkPrompts
from lib.trainers.training_step import told_presence
from tests.support.server import APP

SIZE = 64
CLICKS = NetworkPrompts(torch.tensor([[[20.0, 30.0]], [[40.0, 12.0]]]), torch.ones(2, 1, dtype=torch.int32))
HEAD = "sam_mask_decoder.pred_obj_score_head."


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = build_network(APP / "model" / "biosam2_mini.yaml", SIZE).requires_grad_(True)
    network.rendered_prompts = True
    return network


@pytest.fixture
def features(network):
    return network.encode(torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))


def taught(network, loss):
    """Names of the parameters that a loss reaches with a gradient that is not zero."""
    network.zero_grad()
    loss.backward()
    return {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def test_rows_are_decoded_as_each_alone(network, features):
    with torch.no_grad():
        together = network.segment(features, CLICKS)
        for row in range(2):
            prompts = NetworkPrompts(CLICKS.coordinates[row : row + 1], CLICKS.labels[row : row + 1])
            alone = network.segment(features.rows(torch.tensor([row])), prompts)
            assert torch.allclose(together.logits[row], alone.logits[0], atol=1e-3)
            assert torch.allclose(together.ious[row], alone.ious[0], atol=1e-4)


def test_a_present_object_has_a_mask_although_the_network_denies_it(network, features):
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-100.0)
        assert (network.segment(features, CLICKS).logits == -1024).all()
        with told_presence(network, torch.tensor([True, False])) as said:
            decoded = network.segment(features, CLICKS)
    assert (decoded.logits[0] != -1024).any()
    assert (decoded.logits[1] == -1024).all()
    assert (said[0] < -50).all()


def test_an_absent_object_teaches_the_occlusion_head_alone(network, features):
    with told_presence(network, torch.tensor([False, False])) as said:
        network.segment(features, CLICKS)
    reached = taught(network, said[0].sum())
    assert reached
    assert all(name.startswith(HEAD) for name in reached)


def test_a_present_object_teaches_what_lies_below_the_head_too(network, features):
    with told_presence(network, torch.tensor([True, True])) as said:
        network.segment(features, CLICKS)
    reached = taught(network, said[0].sum())
    assert any(name.startswith("image_encoder.trunk.") for name in reached)


def test_a_tracked_frame_teaches_memory_and_encoder(network, features):
    bank = MemoryBank(4)
    present = torch.tensor([True, True])
    with told_presence(network, present):
        decoded = network.segment(features, CLICKS)
    bank.add_prompted(0, network.remember(features, decoded, prompted=True))
    with told_presence(network, present):
        followed = network.track(features, bank, 1, 2, reverse=False)
    reached = taught(network, followed.logits.sigmoid().mean())
    for part in ("memory_attention.", "memory_encoder.", "image_encoder.", "sam_mask_decoder."):
        assert any(name.startswith(part) for name in reached), part


def test_nothing_stays_behind(network, features):
    with torch.no_grad():
        before = network.segment(features, CLICKS).logits
        with pytest.raises(RuntimeError, match="stop"), told_presence(network, torch.tensor([False, False])):
            raise RuntimeError("stop")
        assert torch.equal(network.segment(features, CLICKS).logits, before)
