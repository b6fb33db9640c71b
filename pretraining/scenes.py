"""What a training batch is, and which objects of it are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["MIN_AREA", "Scenes", "choose_targets", "concatenate"]

MIN_AREA = 0.0006  # of the image: about 40 pixels of 256 x 256, a lesion of seven pixels across


@dataclass
class Scenes:
    """Images with a label map each.

    Attributes:
        images: (B, T, 3, S, S) float32 in [0, 1].
        labels: (B, T, S, S) int64; 0 is background.
        first: (B,) int64; labels from here on are objects, those below are surroundings.
    """

    images: torch.Tensor
    labels: torch.Tensor
    first: torch.Tensor


def concatenate(parts: list[Scenes]) -> Scenes:
    """One batch of several."""
    return Scenes(
        torch.cat([p.images for p in parts]),
        torch.cat([p.labels for p in parts]),
        torch.cat([p.first for p in parts]),
    )


def choose_targets(
    scenes: Scenes, count: int, gen: torch.Generator, whole: float = 0.06
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw objects that can be seen in frame 0.

    Args:
        scenes: a batch.
        count: objects P per image, drawn with replacement.
        gen: source of chance.
        whole: probability of asking for everything that is not background (a body, a head).

    Returns:
        masks (B, P, T, S, S) bool, and valid (B, P) bool: False where the image shows no object.
    """
    b, _, s, _ = scenes.labels.shape
    top = int(scenes.labels.max()) + 1
    flat = scenes.labels[:, 0].flatten(1)
    areas = torch.zeros((b, top), device=flat.device).scatter_add_(
        1, flat, torch.ones_like(flat, dtype=torch.float32)
    )
    numbers = torch.arange(top, device=flat.device)
    ok = (areas >= MIN_AREA * s * s) & (numbers[None] >= scenes.first[:, None]) & (numbers[None] > 0)
    valid = ok.any(1, keepdim=True).expand(b, count)
    weight = torch.where(ok, torch.ones_like(areas), torch.full_like(areas, 1e-9))
    chosen = torch.multinomial(weight, count, replacement=True, generator=gen)
    masks = scenes.labels[:, None] == chosen[:, :, None, None, None]
    has_body = (scenes.first > 1)[:, None]
    take_whole = has_body & (torch.rand((b, count), generator=gen, device=flat.device) < whole)
    masks = torch.where(take_whole[..., None, None, None], (scenes.labels > 0)[:, None], masks)
    return masks, valid | take_whole
