"""From label maps to pictures: intensities, textures and what a scanner adds to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pretraining.shapes import smooth_noise, uniform

__all__ = ["Look", "colourise", "degrade", "paint_intensities"]


@dataclass
class Look:
    """How a style of pictures looks. Ranges are of intensities in [0, 1]; each image draws its own."""

    texture: float = 0.06
    noise: float = 0.05
    speckle: float = 0.0
    bias: float = 0.15
    blur: float = 1.0
    colour: float = 0.1  # probability of an RGB image


def paint_intensities(
    gen: torch.Generator, labels: torch.Tensor, frames: int, table: torch.Tensor, texture: float
) -> torch.Tensor:
    """(N, S, S) pictures: each label its intensity, plus its own mixture of three textures.

    Args:
        gen: source of chance.
        labels: (N, S, S) label maps, N = images x frames.
        frames: frames of each image; they share intensities and, drifting, textures.
        table: (images, L) intensity of each label.
        texture: largest standard deviation of the textures.
    """
    n, s, _ = labels.shape
    images, count = table.shape
    flat = labels.flatten(1)
    picture = table.repeat_interleave(frames, 0).gather(1, flat).view(n, s, s)
    for knots in (4, s // 12, s // 4):
        amount = uniform(gen, (images, count)) ** 2 * texture
        field = smooth_noise(gen, 2 * images, 1, s, knots).view(2, images, 1, s, s)
        steps = torch.arange(frames, device=gen.device).view(1, frames, 1, 1) * 0.35
        moving = torch.cos(steps) * field[0] + torch.sin(steps) * field[1]
        strength = amount.repeat_interleave(frames, 0).gather(1, flat).view(n, s, s)
        picture = picture + strength * moving.reshape(n, s, s)
    return picture


def _blur(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (N, S, S) pictures, sigma in pixels."""
    if sigma < 0.3:
        return picture
    reach = max(1, int(2.5 * sigma + 0.5))
    axis = torch.arange(-reach, reach + 1, device=picture.device, dtype=torch.float32)
    kernel = torch.exp(-(axis**2) / (2 * sigma * sigma))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    padded = F.pad(picture[:, None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))[:, 0]


def degrade(
    gen: torch.Generator, picture: torch.Tensor, frames: int, look: Look, strength: float
) -> torch.Tensor:
    """Blur, bias field, speckle, noise and gamma on (N, S, S) pictures; clipped to [0, 1].

    Args:
        gen: source of chance.
        picture: (N, S, S), N = images x frames.
        frames: frames of each image: they share everything but the noise.
        look: the style's ranges.
        strength: 0 (clean) to 1 (the full range), where the curriculum stands.
    """
    n, s, _ = picture.shape
    images = n // frames

    def draw(high: float) -> torch.Tensor:
        amount = uniform(gen, (images, 1, 1)) ** 1.5 * high * strength
        return amount.repeat_interleave(frames, 0)

    sigma = float(uniform(gen, (1,), 0.0, 1.0)) * look.blur * s / 160
    picture = _blur(picture, sigma)
    field = smooth_noise(gen, images, 1, s, 3)[:, 0].repeat_interleave(frames, 0)
    picture = picture * torch.exp(draw(look.bias) * field)
    white = torch.randn(picture.shape, generator=gen, device=picture.device)
    if float(uniform(gen, (1,))) < 0.4:
        white = _blur(white, 0.8) * 2.2
    grainy = torch.randn(picture.shape, generator=gen, device=picture.device)
    picture = picture * (1 + draw(look.speckle) * grainy) + draw(look.noise) * white
    gamma = torch.exp(uniform(gen, (images, 1, 1), -0.4, 0.4) * strength).repeat_interleave(frames, 0)
    picture = picture.clamp(0, 1) ** gamma
    return picture


def colourise(gen: torch.Generator, picture: torch.Tensor, frames: int, chance: float) -> torch.Tensor:
    """(images, frames, 3, S, S): grey, or with this chance a random tint between two colours."""
    n, s, _ = picture.shape
    images = n // frames
    dark = uniform(gen, (images, 1, 3, 1, 1))
    bright = uniform(gen, (images, 1, 3, 1, 1))
    grey = picture.view(images, frames, 1, s, s)
    tinted = dark + (bright - dark) * grey
    is_tinted = uniform(gen, (images, 1, 1, 1, 1)) < chance
    return torch.where(is_tinted, tinted, grey.expand(-1, -1, 3, -1, -1)).contiguous()
