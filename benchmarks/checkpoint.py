"""A randomly initialised sam2.1_hiera_tiny file: speed does not depend on the values of the weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
# A negative object score marks an empty frame, at which propagation may stop. With random weights the sign is
# random, so a large last bias makes the score positive on every frame, for both servers.
_OBJECT_PRESENT_BIAS = 10.0


def config_path() -> Path:
    """Architecture file of the installed sam2 package."""
    import sam2

    return Path(sam2.__path__[0]) / CONFIG


def build_network(image_size: int, checkpoint: Path | None = None) -> torch.nn.Module:
    """SAM 2.1 tiny in evaluation mode on the CPU, without Hydra's global state.

    Args:
        image_size: Side of the input in pixels, a multiple of 32.
        checkpoint: File of :func:`write_random_checkpoint`; random weights if None.
    """
    model = OmegaConf.load(config_path()).model
    model.image_size = image_size
    # Settings of Meta's inference code, as in both servers.
    model.sam_mask_decoder_extra_args = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    OmegaConf.resolve(model)
    network = instantiate(model, _recursive_=True).eval()
    if checkpoint is not None:
        network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["model"])
    return network


def write_random_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """Writes ``sam2.1_hiera_tiny_random.pt`` and the peer's configuration beside it.

    The peer looks for both files in its model folder and downloads what is not there; with both in place it
    downloads nothing.

    Returns:
        Path of the weights, ``{"model": state_dict}`` as Meta publishes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = build_network(1024)
    with torch.no_grad():
        network.get_parameter("sam_mask_decoder.pred_obj_score_head.layers.2.bias").fill_(
            _OBJECT_PRESENT_BIAS
        )
    path = folder / "sam2.1_hiera_tiny_random.pt"
    torch.save({"model": network.state_dict()}, path)
    shutil.copyfile(config_path(), peer_config(path))
    return path


def peer_config(checkpoint: Path) -> Path:
    """Path of the peer's architecture file for ``checkpoint``."""
    return checkpoint.with_name("peer_sam2.1_hiera_t.yaml")
