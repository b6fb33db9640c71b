"""Which parameters a preset trains, and at which rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import nn

from lib.engine.network import Network
from lib.trainers.options import Preset, TrainOptions

# Two convolutions of the mask decoder run in the image encoder, on its fine maps: where embeddings are kept,
# what they made is kept too, and they cannot learn.
_LENT_TO_ENCODER = ("sam_mask_decoder.conv_s0", "sam_mask_decoder.conv_s1")
_TRUNK = "image_encoder.trunk."

_MODULES: dict[Preset, tuple[str, ...]] = {
    "paper": ("image_encoder", "sam_mask_decoder"),
    "decoder": ("sam_mask_decoder",),
    "video": ("image_encoder", "sam_mask_decoder", "memory_attention", "memory_encoder"),
}


def trains(name: str, preset: Preset) -> bool:
    """Whether a preset trains the parameter of this name. No preset trains the prompt encoder."""
    if preset == "decoder" and name.startswith(_LENT_TO_ENCODER):
        return False
    return name.split(".")[0] in _MODULES[preset]


def prepare(network: Network, preset: Preset) -> None:
    """Marks what is trained and puts those modules, and no others, into training mode.

    The network itself stays as it is in service: its training mode would draw memories at random and decode
    three masks.
    """
    network.eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trains(name, preset))
    for module in _MODULES[preset]:
        getattr(network, module).train()


def parameter_groups(network: Network, options: TrainOptions) -> list[dict[str, object]]:
    """The trained parameters for AdamW, grouped by rate and decay; ``initial_lr`` is what a schedule scales.

    A layer of the trunk learns at ``layer_decay`` times the rate of the layer above it (Clark et al. 2020,
    ELECTRA; SAM 2 fine-tunes with 0.9). Biases, norms and embeddings have no weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in trained_parameters(network):
        rate = options.learning_rate * options.layer_decay ** _depth_below_top(network, name)
        groups[rate, 0.0 if _is_undecayed(name, parameter) else options.weight_decay].append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def trained_parameters(network: Network) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that ``prepare`` marked."""
    return ((name, value) for name, value in network.named_parameters() if value.requires_grad)


def _depth_below_top(network: Network, name: str) -> int:
    if not name.startswith(_TRUNK):
        return 0
    trunk = network.image_encoder.trunk
    layers: int = trunk.get_num_layers() + 1
    return layers - int(trunk.get_layer_id(name.removeprefix(_TRUNK)))


def _is_undecayed(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim <= 1 or "pos_embed" in name or "token" in name
