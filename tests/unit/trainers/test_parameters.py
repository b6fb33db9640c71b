"""What trains, at which rate: by name, before anything is trained."""

import pytest

from lib.engine.builder import build_network
from lib.trainers.options import TrainOptions
from lib.trainers.parameters import parameter_groups, prepare, trained_parameters
from tests.support.server import APP

MODULES = {
    "paper": {"image_encoder", "sam_mask_decoder"},
    "decoder": {"sam_mask_decoder"},
    "video": {"image_encoder", "sam_mask_decoder", "memory_attention", "memory_encoder"},
}


@pytest.fixture(scope="module")
def network():
    return build_network(APP / "model" / "biosam2_mini.yaml", 64)


@pytest.mark.parametrize("preset", MODULES)
def test_a_preset_trains_its_modules_and_nothing_else(network, preset):
    prepare(network, preset)
    trained = {name for name, _ in trained_parameters(network)}
    assert {name.split(".")[0] for name in trained} == MODULES[preset]
    for name, _ in network.named_parameters():
        lent = preset == "decoder" and name.startswith(
            ("sam_mask_decoder.conv_s0", "sam_mask_decoder.conv_s1")
        )
        assert (name in trained) == (name.split(".")[0] in MODULES[preset] and not lent), name
    assert not network.training


def test_the_rate_falls_with_the_depth_of_the_encoder(network):
    prepare(network, "paper")
    options = TrainOptions(learning_rate=1e-4, layer_decay=0.9)
    rate = {
        id(parameter): group["lr"]
        for group in parameter_groups(network, options)
        for parameter in group["params"]
    }
    rates = {name: rate[id(parameter)] for name, parameter in trained_parameters(network)}
    # Eight blocks: layer 0 is the patch embedding, 9 what stands above the blocks (Hiera.get_layer_id).
    assert rates["image_encoder.trunk.patch_embed.proj.weight"] == pytest.approx(1e-4 * 0.9**9)
    assert rates["image_encoder.trunk.blocks.0.mlp.layers.0.weight"] == pytest.approx(1e-4 * 0.9**8)
    assert rates["image_encoder.trunk.blocks.7.mlp.layers.0.weight"] == pytest.approx(1e-4 * 0.9)
    assert rates["image_encoder.neck.convs.0.conv.weight"] == 1e-4
    assert rates["sam_mask_decoder.iou_token.weight"] == 1e-4


def test_every_trained_parameter_is_in_one_group(network):
    prepare(network, "video")
    grouped = [id(p) for group in parameter_groups(network, TrainOptions()) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for _, p in trained_parameters(network))


def test_biases_norms_and_embeddings_do_not_decay(network):
    prepare(network, "paper")
    names = {id(parameter): name for name, parameter in trained_parameters(network)}
    for group in parameter_groups(network, TrainOptions(weight_decay=0.01)):
        for parameter in group["params"]:
            name = names[id(parameter)]
            plain = parameter.ndim <= 1 or "pos_embed" in name or "token" in name
            assert group["weight_decay"] == (0.0 if plain else 0.01), name
