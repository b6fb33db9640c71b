"""From a configuration and a checkpoint to a network, without Hydra's global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lib.engine.checkpoints import Weights, load_state_dict
from lib.engine.network import Network
from lib.engine.registry import Registry
from lib.errors import CheckpointError

_TARGET = f"{Network.__module__}.{Network.__qualname__}"

# What SAM 2 itself sets for inference: a single mask that changes much with the threshold (stability
# below 0.98 between logits of +-0.05) gives way to the best of the three candidates.
_STABILITY_MULTIMASK = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


def build_network(config: Path, image_size: int | None = None, stability_multimask: bool = False) -> Network:
    """Builds a network with random weights, on the CPU, ready for inference.

    Args:
        config: a SAM 2 configuration (YAML).
        image_size: side of the input in pixels, a multiple of 32; None: the configuration's own.
        stability_multimask: see ``registry.yaml``.

    Raises:
        CheckpointError: when the configuration cannot be read.
    """
    try:
        model = OmegaConf.load(config).model
        model._target_ = _TARGET
        model.binarize_mask_from_pts_for_mem_enc = True
        if image_size is not None:
            model.image_size = image_size
        if stability_multimask:
            model.sam_mask_decoder_extra_args = _STABILITY_MULTIMASK
        network: Network = instantiate(model)
    except (OSError, AttributeError, OmegaConfBaseException) as error:
        raise CheckpointError(f"the configuration {config} cannot be read: {error}") from error
    return network.eval().requires_grad_(False)


def load_network(weights: Weights, registry: Registry) -> Network:
    """Builds the network of a checkpoint and fills it, strictly.

    Raises:
        CheckpointError: when the file cannot be trusted or read, or is of another architecture.
    """
    tensors = load_state_dict(weights)
    config = weights.config or _matching_config(tensors, weights, registry)
    network = build_network(config, weights.image_size, weights.stability_multimask)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:3]
        raise CheckpointError(
            f"{weights.name}: {weights.path} is of another architecture than {config.name}: "
            f"{' '.join(first).strip()}"
        ) from error
    network.rendered_prompts = weights.rendered_prompts
    return network


def _matching_config(tensors: dict[str, torch.Tensor], weights: Weights, registry: Registry) -> Path:
    """The configuration of the registry whose architecture the tensors have."""
    wanted = _signature_of_tensors(tensors)
    for name in dict.fromkeys(entry.config for entry in registry.entries.values()):
        path = registry.config_path(name)
        if wanted == _signature_of_config(OmegaConf.load(path).model):
            return path
    raise CheckpointError(
        f"{weights.name}: {weights.path} is of no architecture of the registry; "
        f"put its configuration beside it as {weights.path.with_suffix('.yaml').name}"
    )


def _signature_of_tensors(tensors: dict[str, torch.Tensor]) -> tuple[int, int, int, bool]:
    """Trunk width, number of trunk blocks, width of the embeddings, and whether it is SAM 2.1."""
    width = tensors.get("image_encoder.trunk.patch_embed.proj.weight", torch.empty(0)).shape[0]
    blocks = {name.split(".")[3] for name in tensors if name.startswith("image_encoder.trunk.blocks.")}
    hidden = tensors.get("no_mem_embed", torch.empty(0)).shape[-1]
    return width, len(blocks), hidden, "no_obj_embed_spatial" in tensors


def _signature_of_config(model: Any) -> tuple[int, int, int, bool]:
    encoder = model.image_encoder
    # Hiera's own defaults: the configuration of base_plus relies on them.
    blocks = sum(encoder.trunk.get("stages", (2, 3, 16, 3)))
    return (
        encoder.trunk.embed_dim,
        blocks,
        encoder.neck.d_model,
        bool(model.get("no_obj_embed_spatial", False)),
    )
