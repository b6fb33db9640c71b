"""The trunk of the bundled network, and SAM's features for it."""

import pytest
import torch

from lib.engine.tinyvit import TinyViT, WindowAttention
from pretraining.network import build, quick_depthwise
from pretraining.trunk import load_trunk

CONVOLUTIONS = {"expand": "conv1", "depthwise": "conv2", "project": "conv3"}


@pytest.fixture
def image(gen) -> torch.Tensor:
    return torch.randn(1, 3, 256, 256, generator=gen)


def test_levels_have_the_strides_and_the_unit_scale_that_the_neck_wants(image):
    trunk = TinyViT().eval()
    with torch.no_grad():
        levels = trunk(image)
    assert [tuple(level.shape[1:]) for level in levels] == [(64, 64, 64), (128, 32, 32), (256, 16, 16)]
    assert trunk.channel_list == [256, 128, 64]
    assert all(0.5 < float(level.std()) < 1.5 for level in levels)


def test_layers_are_counted_as_fine_tuning_counts_them():
    trunk = TinyViT()
    depths = {name: trunk.get_layer_id(name) for name, _ in trunk.named_parameters()}
    assert (min(depths.values()), max(depths.values()), trunk.get_num_layers()) == (0, 13, 12)
    assert depths["blocks.4.norm.weight"] == depths["merges.1.expand.weight"] + 1 == 5


def test_attention_is_within_windows_and_adds_the_bias_of_the_distance(gen):
    """Against sums over the cells of one window, for one head."""
    attention = WindowAttention(32, 2).eval()
    attention.distance_bias.data = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    x = torch.randn(1, 4, 4, 32, generator=gen)
    with torch.no_grad():
        found = attention(x)[0, 2:, :2].reshape(4, 32)
        cells = x[0, 2:, :2].reshape(4, 32)
        q, k, v = attention.qkv(attention.norm(cells)).chunk(3, -1)
        # The cells in order: (0, 0), (0, 1), (1, 0), (1, 1); of distances: none, a column, a row, both.
        bias = torch.tensor([[0.0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
        weights = (q @ k.T / 32**0.5 + bias).softmax(-1)
        expected = attention.proj(weights @ v)
    assert torch.allclose(found, expected, atol=1e-5)


def test_published_weights_fill_the_trunk(gen):
    source, target = TinyViT(windows=(7, 14, 7)), TinyViT()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=gen))
    load_trunk(target, _published(source))
    expected = source.state_dict()
    for name, value in target.state_dict().items():
        if name.endswith("distance_bias"):
            side, known = int(value.shape[1] ** 0.5), int(expected[name].shape[1] ** 0.5)
            wide, narrow = value.view(-1, side, side), expected[name].view(-1, known, known)
            assert torch.equal(wide[:, :known, :known], narrow)
            assert torch.equal(wide[:, -1, -1], narrow[:, -1, -1])
        elif not name.startswith("norms."):
            assert torch.equal(value, expected[name]), name


def test_weights_of_another_network_are_refused():
    parts = _published(TinyViT(windows=(7, 14, 7)))
    parts["layers.2.blocks.0.local_conv.c.Conv"] = [torch.zeros(4, 1, 3, 3), torch.zeros(4)]
    with pytest.raises(ValueError, match="does not hold the weights of this trunk"):
        load_trunk(TinyViT(), parts)
    del parts["neck.neck.0.Conv"]
    with pytest.raises(ValueError, match="does not hold the weights of this trunk"):
        load_trunk(TinyViT(), parts)


def test_the_quick_backward_pass_is_the_usual_one(image):
    gradients = []
    for quick in (False, True):
        torch.manual_seed(0)
        trunk = TinyViT()
        if quick:
            quick_depthwise(trunk)
        sum(level.square().mean() * (n + 1) for n, level in enumerate(trunk(image * 3))).backward()
        gradients.append([p.grad for p in trunk.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*gradients, strict=True))


def test_the_network_with_this_trunk_is_small():
    assert sum(p.numel() for p in build().parameters()) <= 9_000_000


def _published(trunk: TinyViT) -> dict[str, list[torch.Tensor]]:
    """A trunk's weights by the names of the nodes of MobileSAM's graph."""
    weights = trunk.state_dict()
    parts = {
        "patch_embed.seq.seq.0.c.Conv": _pair(weights, "patch_embed.stem"),
        "patch_embed.seq.seq.2.c.Conv": _pair(weights, "patch_embed.proj"),
        "neck.neck.0.Conv": [weights["neck.0.weight"]],
        "neck.neck.2.Conv": [weights["neck.2.weight"]],
    }
    for name in ("neck.1", "neck.3"):
        parts |= _norm(weights, name, f"neck.{name}")
    for number in range(3):
        for ours, theirs in CONVOLUTIONS.items():
            parts[f"layers.{number}.downsample.{theirs}.c.Conv"] = _pair(weights, f"merges.{number}.{ours}")
    for number, (stage, block) in enumerate(trunk.places()):
        ours, theirs = f"blocks.{number}", f"layers.{stage}.blocks.{block}"
        if stage == 0:
            for name, published in CONVOLUTIONS.items():
                parts[f"{theirs}.{published}.c.Conv"] = _pair(weights, f"{ours}.{name}")
            continue
        attention = trunk.blocks[number].attention
        parts[f"{theirs}.attn.Constant_5"] = [attention.bias().detach()]
        parts |= _norm(weights, f"{ours}.attention.norm", f"{theirs}.attn.norm")
        parts |= _norm(weights, f"{ours}.norm", f"{theirs}.mlp.norm")
        for name in ("qkv", "proj"):
            parts |= _linear(weights, f"{ours}.attention.{name}", f"{theirs}.attn.{name}")
        for name, published in (("widen", "fc1"), ("narrow", "fc2")):
            parts |= _linear(weights, f"{ours}.{name}", f"{theirs}.mlp.{published}")
        parts[f"{theirs}.local_conv.c.Conv"] = _pair(weights, f"{ours}.depthwise")
    return parts


def _pair(weights: dict[str, torch.Tensor], name: str) -> list[torch.Tensor]:
    return [weights[f"{name}.weight"], weights[f"{name}.bias"]]


def _linear(weights: dict[str, torch.Tensor], ours: str, theirs: str) -> dict[str, list[torch.Tensor]]:
    weight, bias = _pair(weights, ours)
    return {f"{theirs}.MatMul": [weight.T], f"{theirs}.Add": [bias]}


def _norm(weights: dict[str, torch.Tensor], ours: str, theirs: str) -> dict[str, list[torch.Tensor]]:
    weight, bias = _pair(weights, ours)
    return {f"{theirs}.Mul": [weight], f"{theirs}.Add_1": [bias]}
