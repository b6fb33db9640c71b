"""Where a training starts: weights to begin with, and how fast each part of the network learns."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from pretraining.checkpoint import read_weights
from pretraining.trunk import load_trunk, read_onnx

__all__ = ["fill", "parameter_groups"]

WEIGHT_DECAY = 0.02

logger = logging.getLogger("pretraining")


def fill(model: SAM2Base, weights: Path | None, trunk: Path | None) -> None:
    """Fill a network from exported weights, where names and shapes agree, and its trunk from an ONNX file."""
    if weights:
        source, target = read_weights(weights), model.state_dict()
        fitting = {k: v for k, v in source.items() if k in target and v.shape == target[k].shape}
        model.load_state_dict(fitting, strict=False)
        logger.info("%d of %d tensors from %s", len(fitting), len(target), weights)
    if trunk:
        load_trunk(model.image_encoder.trunk, read_onnx(trunk))


def parameter_groups(model: nn.Module, trunk_rate: float) -> list[dict]:
    """Parameters by weight decay and by `share` of the rate, which is `trunk_rate` for the trunk."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        share = trunk_rate if name.startswith("image_encoder.trunk.") else 1.0
        groups[share, WEIGHT_DECAY if parameter.ndim > 1 else 0.0].append(parameter)
    return [{"params": p, "share": share, "weight_decay": decay} for (share, decay), p in groups.items()]
