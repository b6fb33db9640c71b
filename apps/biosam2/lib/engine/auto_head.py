"""Prompt-free classes: one learned token and one hypernetwork per label on frozen features.

The idea is SAM2-PATH's (Zhang et al. 2024): the mask tokens of SAM's decoder are replaced by one token per
class, and each class has a hypernetwork that turns its token into the weights of a classifier of pixels. Here
the token attends to the last feature map once, and pixels come from all three maps.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from lib.engine.frames import FrameSequence
from lib.engine.model_versions import save_tensors
from lib.engine.predictor import FrameMask, Predictor
from lib.errors import CheckpointError

# File of a version's folder.
HEAD_FILE = "auto_head.pt"
# Ways of segmenting a label without a prompt.
ONE_PROMPT, AUTO_HEAD = "one_prompt", "auto_head"
# Channels of a token and of a pixel.
WIDTH = 32
_HEADS = 4
# Terms of a position.
_TERMS = 6


class AutoHead(nn.Module):
    """Segments labels on frames without a prompt.

    Args:
        channels: Channels of the encoder's maps, from stride 4 to stride 16.
        labels: Names of the labels.

    Attributes:
        ways: Dice on held-out images by label and way of segmenting it, ``one_prompt`` and ``auto_head``.
    """

    def __init__(self, channels: Sequence[int], labels: Sequence[str]):
        super().__init__()
        self.ways: dict[str, dict[str, float]] = {}
        self.channels, self.labels = tuple(channels), tuple(labels)
        self.levels = nn.ModuleList(nn.Conv2d(count, WIDTH, 1) for count in channels)
        self.position = nn.Conv2d(_TERMS, WIDTH, 1)
        self.fuse = nn.Sequential(nn.GELU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GELU())
        self.tokens = nn.Parameter(torch.randn(len(labels), WIDTH) / math.sqrt(WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, _HEADS, batch_first=True)
        self.hypernetworks = nn.ModuleList(hypernetwork() for _ in labels)

    @property
    def better(self) -> list[str]:
        """Labels for which the head was better than one prompt on held-out images."""
        return [name for name, dices in self.ways.items() if dices[AUTO_HEAD] > dices[ONE_PROMPT]]

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits (B, labels, S/4, S/4) of the maps (B, C, h, w) of B frames."""
        size = maps[0].shape[-2:]
        levels = [
            level(F.normalize(features.float(), dim=1) * math.sqrt(features.shape[1]))
            for level, features in zip(self.levels, maps, strict=True)
        ]
        pixels = sum(F.interpolate(level, size, mode="bilinear") for level in levels)
        pixels = self.fuse(pixels + self.position(position_terms(size, maps[0].device)))
        places = levels[-1] + self.position(position_terms(levels[-1].shape[-2:], maps[0].device))
        places = places.flatten(2).transpose(1, 2)
        tokens = self.tokens.expand(len(places), -1, -1)
        tokens = tokens + self.attention(tokens, places, places, need_weights=False)[0]
        weights = torch.stack([net(tokens[:, n]) for n, net in enumerate(self.hypernetworks)], dim=1)
        logits: torch.Tensor = torch.einsum("blc,bchw->blhw", weights[..., :-1], pixels)
        return logits / math.sqrt(WIDTH) + weights[..., -1, None, None]


def position_terms(size: Sequence[int], device: torch.device) -> torch.Tensor:
    """(1, 6, H, W) terms of the position: x, y, x^2, y^2, x y and r^4 over -1 to 1."""
    steps = (torch.linspace(-1, 1, side, device=device) for side in size)
    y, x = torch.meshgrid(*steps, indexing="ij")
    return torch.stack([x, y, x * x, y * y, x * y, (x * x + y * y) ** 2])[None]


def hypernetwork() -> nn.Module:
    """From the token of a label to the weights and the offset of its classifier of pixels."""
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH + 1))


def save_head(path: Path, head: AutoHead) -> None:
    """Writes a head.

    Raises:
        OSError: The disk is full.
    """
    state = {name: value.detach().cpu() for name, value in head.state_dict().items()}
    facts = {"channels": list(head.channels), "labels": list(head.labels), "ways": head.ways}
    save_tensors(path, {**facts, "state": state})


def load_head(path: Path) -> AutoHead:
    """Reads what ``save_head`` wrote.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        head = AutoHead(content["channels"], content["labels"])
        head.load_state_dict(content["state"])
        head.ways = content["ways"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path.name} of {path.parent.name} cannot be read: {error}") from error
    return head.eval().requires_grad_(False)


class HeadSegmenter:
    """Segments one label of a head.

    Args:
        predictor: Predictor of the weights that the head was trained with.
        head: Head.
        label: One of its labels.
    """

    def __init__(self, predictor: Predictor, head: AutoHead, label: str):
        self._predictor = predictor
        self._head = head.to(predictor.runtime.device)
        self._number = head.labels.index(label)

    def frame(self, frames: FrameSequence, index: int) -> FrameMask:
        """Segments the label on one frame."""
        maps = self._predictor.features(frames, index).maps
        with self._predictor.runtime.step():
            logits = self._head(maps)[:, self._number, None].float()
            logits = F.interpolate(logits, (frames.height, frames.width), mode="bilinear")[0, 0]
        return FrameMask.expected(logits.cpu().numpy())

    def segment(self, frames: FrameSequence) -> Iterator[tuple[int, FrameMask]]:
        """Index and result of each frame."""
        return ((index, self.frame(frames, index)) for index in range(len(frames)))
