"""The trunk of the bundled network, and ImageNet weights for it."""

import pytest
import torch

from lib.engine.efficientnet import EfficientNetLite
from pretraining import APP
from pretraining.network import build, quick_depthwise
from pretraining.trunk import load_trunk

CONFIG = APP.parent.parent / "pretraining" / "lite0.yaml"


def test_levels_have_the_strides_and_the_unit_scale_that_the_neck_wants(gen):
    trunk = EfficientNetLite().eval()
    with torch.no_grad():
        levels = trunk(torch.randn(1, 3, 64, 64, generator=gen))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (24, 16, 16),
        (40, 8, 8),
        (112, 4, 4),
        (320, 2, 2),
    ]
    assert trunk.channel_list == [320, 112, 40, 24]
    assert all(0.5 < float(level.std()) < 1.5 for level in levels)


def test_layers_are_counted_as_fine_tuning_counts_them():
    trunk = EfficientNetLite()
    depths = [trunk.get_layer_id(name) for name, _ in trunk.named_parameters()]
    assert (min(depths), max(depths), trunk.get_num_layers()) == (0, 17, 16)


def test_padding_is_tensorflows():
    """Of a 3 x 3 filter of stride 2, the first window starts at the first pixel."""
    convolution = EfficientNetLite().patch_embed["proj"]
    with torch.no_grad():
        convolution.weight.zero_()[:, 0, 0, 0] = 1.0
    image = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    assert convolution(image)[0, 0].tolist() == image[0, 0, ::2, ::2].tolist()


def test_batch_norms_are_folded(tmp_path, gen):
    """Against torch's own convolution and batch normalisation, on an input in the trained range."""
    trunk = EfficientNetLite()
    source = _published(trunk, gen)
    torch.save(source, tmp_path / "lite0.pth")
    load_trunk(trunk, tmp_path / "lite0.pth")
    levels = torch.rand(1, 3, 32, 32, generator=gen)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    given = (levels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    found = trunk.patch_embed["proj"](given)
    filtered = torch.nn.functional.conv2d(2 * levels - 1, source["_conv_stem.weight"], stride=2)
    expected = torch.nn.functional.batch_norm(
        filtered,
        *(source[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias")),
        eps=1e-3,
    )
    assert torch.allclose(found[..., :15, :15], expected, atol=1e-3)


def test_weights_of_another_size_are_refused(tmp_path, gen):
    torch.save(_published(EfficientNetLite(stages=(1, 3, 3, 4, 4, 5, 1)), gen), tmp_path / "lite1.pth")
    with pytest.raises(ValueError, match="does not hold the weights of this trunk"):
        load_trunk(EfficientNetLite(), tmp_path / "lite1.pth")


def _published(trunk: EfficientNetLite, gen: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights with the names and the order of the published files."""
    out, norm = {}, 0
    for name, value in trunk.state_dict().items():
        if name.endswith("weight") and value.ndim == 4:
            stem = (
                "_conv_stem"
                if name.startswith("patch")
                else f"_blocks.{name}".removesuffix(".weight") + "_conv"
            )
            out[f"{stem}.weight"] = torch.randn(value.shape, generator=gen)
            for part in ("weight", "bias", "running_mean", "running_var"):
                out[f"_blocks.{norm}._bn.{part}" if norm else f"_bn0.{part}"] = (
                    torch.rand(len(value), generator=gen) + 0.5
                )
            norm += 1
    return out | {"_fc.weight": torch.zeros(2, 2)}


def test_the_quick_backward_pass_is_the_usual_one(gen):
    image = torch.randn(1, 3, 64, 64, generator=gen)
    gradients = []
    for quick in (False, True):
        torch.manual_seed(0)
        trunk = EfficientNetLite()
        if quick:
            quick_depthwise(trunk)
        sum(level.square().mean() * (n + 1) for n, level in enumerate(trunk(image * 3))).backward()
        gradients.append([p.grad for p in trunk.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_the_network_with_this_trunk_is_small():
    assert sum(p.numel() for p in build(config=CONFIG).parameters()) <= 6_000_000
