"""From a configuration and a checkpoint to a network, without Hydra's global state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lib.engine.checkpoints import Weights, load_state_dict
from lib.engine.network import Network
from lib.engine.registry import DeviceType, Entry, Registry
from lib.engine.rotary_attention import RotaryAttention
from lib.errors import CheckpointError

# Pixels of the input along a side of a cell of the memory.
_STRIDE = 16
_TARGET = f"{Network.__module__}.{Network.__qualname__}"
_ATTENTION = f"{RotaryAttention.__module__}.{RotaryAttention.__qualname__}"

# What SAM 2 itself sets for inference: masks of clicks are remembered as zeros and ones, and a single mask
# that changes much with the threshold (stability below 0.98 between logits of +-0.05) gives way to the best
# of the three candidates.
_META_SETTINGS = {
    "binarize_mask_from_pts_for_mem_enc": True,
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
}


# BioSAM-2 decodes one mask per frame: no choice among three, neither of a click nor of a tracked frame.
_SINGLE_MASK = {"multimask_output_in_sam": False, "multimask_output_for_tracking": False}


def build_network(
    config: Path, image_size: int | None = None, meta_settings: bool = False, single_mask: bool = False
) -> Network:
    """Builds a network with random weights, on the CPU, ready for inference.

    Args:
        config: SAM 2 configuration (YAML).
        image_size: Side of the input in pixels, a multiple of 32; None: the configuration's own.
        meta_settings: see ``registry.yaml``.
        single_mask: see ``Weights``.

    Raises:
        CheckpointError: when the configuration cannot be read.
    """
    try:
        model = OmegaConf.load(config).model
        model._target_ = _TARGET
        layer = model.memory_attention.layer
        layer.self_attention._target_ = layer.cross_attention._target_ = _ATTENTION
        if image_size is not None:
            model.image_size = image_size
        if meta_settings:
            model.update(_META_SETTINGS)
        if single_mask:
            model.update(_SINGLE_MASK)
        network: Network = instantiate(model)
    except (OSError, AttributeError, OmegaConfBaseException) as error:
        raise CheckpointError(f"the configuration {config} cannot be read: {error}") from error
    _prepare_rotations(network)
    return network.eval().requires_grad_(False)


def _prepare_rotations(network: Network) -> None:
    """Tables of rotations for this size of input: made in inference mode, they could not be trained with.

    Layers of the same width share them: at 1024 px a table takes 4 MB.
    """
    side = network.image_size // _STRIDE
    tables: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for module in network.memory_attention.modules():
        if isinstance(module, RotaryAttention):
            module.set_grid(side)
            width = module.internal_dim // module.num_heads
            module.cos, module.sin = tables.setdefault(width, (module.cos, module.sin))


def load_network(weights: Weights, registry: Registry, device: DeviceType) -> Network:
    """Builds the network of a checkpoint and fills it, strictly.

    Args:
        weights: Checkpoint.
        registry: Known architectures, for a checkpoint without a configuration.
        device: Type of the device; it decides the size of the input where nothing else does.

    Raises:
        CheckpointError: The file cannot be trusted or read, or has another architecture.
    """
    tensors = load_state_dict(weights)
    weights = _described(weights, tensors, registry, device)
    if weights.config is None:
        raise CheckpointError(f"{weights.name}: no configuration is known for {weights.path}")
    network = build_network(weights.config, weights.image_size, weights.meta_settings, weights.single_mask)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:3]
        raise CheckpointError(
            f"{weights.name}: {weights.path} is of another architecture than {weights.config.name}: "
            f"{' '.join(first).strip()}"
        ) from error
    network.rendered_prompts = weights.rendered_prompts
    return network


def described(weights: Weights, registry: Registry, device: DeviceType) -> Weights:
    """The same weights with their configuration known, found from the file's tensors where it was not.

    Raises:
        CheckpointError: when the file cannot be trusted or read, or is of an unknown architecture.
    """
    if weights.config is not None:
        return weights
    return _described(weights, load_state_dict(weights), registry, device)


def _described(
    weights: Weights, tensors: dict[str, torch.Tensor], registry: Registry, device: DeviceType
) -> Weights:
    if weights.config is not None:
        return weights
    entry = _matching_entry(tensors, weights, registry)
    return replace(
        weights,
        config=registry.config_path(entry.config),
        image_size=weights.image_size or entry.image_size[device],
        rendered_prompts=entry.rendered_prompts,
        meta_settings=entry.meta_settings,
    )


def _matching_entry(tensors: dict[str, torch.Tensor], weights: Weights, registry: Registry) -> Entry:
    """The first entry of the registry whose architecture the tensors have: the weights run as it does."""
    wanted = _signature_of_tensors(tensors)
    for entry in registry.entries.values():
        config = OmegaConf.load(registry.config_path(entry.config))
        if wanted == _signature_of_config(config.model):
            return entry
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
