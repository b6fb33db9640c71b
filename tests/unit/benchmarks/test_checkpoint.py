import pytest
import torch

from benchmarks.checkpoint import build_network, peer_config, write_random_checkpoint

PARAMETERS = 38_962_498  # of sam2.1_hiera_tiny, as Meta publishes it
POSITIONS = 2 * 128  # of the prompt encoder: stored, not trained


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("weights"), seed=3)


def test_the_file_is_a_tiny_sam2_and_the_peers_configuration_lies_beside_it(checkpoint):
    tensors = torch.load(checkpoint, weights_only=True)["model"]
    assert sum(tensor.numel() for tensor in tensors.values()) == PARAMETERS + POSITIONS
    assert peer_config(checkpoint).read_text().count("sam2.modeling.sam2_base.SAM2Base") == 1


def test_a_network_of_another_size_takes_the_same_weights(checkpoint):
    network = build_network(128, checkpoint)
    assert network.image_size == 128
    assert not network.training


def test_no_frame_counts_as_empty(checkpoint):
    tensors = torch.load(checkpoint, weights_only=True)["model"]
    bias = tensors["sam_mask_decoder.pred_obj_score_head.layers.2.bias"]
    assert bias.item() == pytest.approx(10.0)
