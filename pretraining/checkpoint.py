"""Checkpoints of a training, and the file that ships."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["Average", "export", "load", "read_weights", "save"]


class Average:
    """Exponential moving average of a network's weights, short at first."""

    def __init__(self, model: torch.nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        """Take in the weights after `step` steps."""
        keep = min(self.decay, (1 + step) / (10 + step))
        current = model.state_dict()
        floats = [k for k, v in self.state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.state[k] for k in floats], [current[k] for k in floats], 1 - keep)


def save(path: Path, content: dict) -> None:
    """Write a checkpoint so that a cut leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    torch.save(content, beside)
    beside.replace(path)


def load(path: Path, device: str) -> dict | None:
    """The checkpoint, or None where there is none yet."""
    if not path.exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)


def export(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write {"model": weights} in half precision, complete, for strict loading."""
    half = {k: v.half().cpu() if v.is_floating_point() else v.cpu() for k, v in state.items()}
    save(path, {"model": half})


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of an exported file, in single precision."""
    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
