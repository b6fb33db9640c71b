"""Random label maps: star-convex shapes and warped cells, for many frames at once.

Coordinates are fractions of the image's side: (0, 0) is the upper left corner, (1, 1) the lower right.
Frames are the batch: N = images x frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["Stars", "along_axes", "cells", "paint_stars", "smooth_noise", "uniform", "warped_grid"]


def uniform(
    gen: torch.Generator, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0
) -> torch.Tensor:
    """Uniform numbers in [low, high) on the generator's device."""
    return torch.rand(shape, generator=gen, device=gen.device) * (high - low) + low


def smooth_noise(gen: torch.Generator, count: int, channels: int, size: int, knots: int) -> torch.Tensor:
    """(count, channels, size, size) smooth random fields of about unit variance, `knots` bumps a side."""
    coarse = torch.randn((count, channels, knots + 1, knots + 1), generator=gen, device=gen.device)
    return F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)


def warped_grid(gen: torch.Generator, images: int, frames: int, size: int, strength: float) -> torch.Tensor:
    """(images * frames, 2, size, size) x and y of every pixel, smoothly displaced, drifting over frames."""
    axis = (torch.arange(size, device=gen.device) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    identity = torch.stack([x, y])
    coarse = smooth_noise(gen, 2 * images, 2, size, 4) + 0.4 * smooth_noise(gen, 2 * images, 2, size, 9)
    start, drift = coarse.view(2, images, 2, size, size)
    time = torch.arange(frames, device=gen.device).view(1, frames, 1, 1, 1) * 0.08
    amount = uniform(gen, (images, 1, 1, 1, 1), 0.0, strength)
    field = start[:, None] + time * drift[:, None]
    return (identity + amount * field).flatten(0, 1)


@dataclass
class Stars:
    """Star-convex shapes of N frames, K a frame; a later one hides an earlier one. All tensors (N, K)."""

    x: torch.Tensor
    y: torch.Tensor
    a: torch.Tensor  # half axes, as fractions of the side; 0 = not there
    b: torch.Tensor
    angle: torch.Tensor
    lobe: torch.Tensor  # strength of the third harmonic, below 0.3


def along_axes(grid: torch.Tensor, *placed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, S, S) u and v of every pixel, 1 at the ends of a shape's half axes.

    Args:
        grid: (N, 2, S, S) warped coordinates.
        placed: (N, 1, 1) x and y of the centre, half axes a and b, and angle, as in ``Stars``.
    """
    cx, cy, a, b, angle = placed
    dx, dy = grid[:, 0] - cx, grid[:, 1] - cy
    u = (torch.cos(angle) * dx + torch.sin(angle) * dy) / a.clamp(min=1e-4)
    v = (torch.cos(angle) * dy - torch.sin(angle) * dx) / b.clamp(min=1e-4)
    return u, v


def paint_stars(stars: Stars, grid: torch.Tensor, labels: torch.Tensor, first: int) -> torch.Tensor:
    """Paint shapes over (N, S, S) labels; shape k gets the label first + k.

    A point is inside where r < 1 + lobe * cos(3 theta), in the frame of the shape's half axes.
    """
    for k in range(stars.x.shape[1]):
        one = [t[:, k, None, None] for t in (stars.x, stars.y, stars.a, stars.b, stars.angle, stars.lobe)]
        cx, cy, a, b, angle, lobe = one
        u, v = along_axes(grid, cx, cy, a, b, angle)
        square = u * u + v * v + 1e-6
        radius = torch.sqrt(square)
        harmonic = u * (u * u - 3 * v * v) / (square * radius)
        inside = (radius < 1 + lobe * harmonic) & (a > 0)
        labels = torch.where(inside, torch.full_like(labels, first + k), labels)
    return labels


def cells(
    gen: torch.Generator, grid: torch.Tensor, frames: int, across: int, fill: float, gap: float
) -> torch.Tensor:
    """(N, S, S) labels of about across^2 cells on a jittered lattice, 0 between them.

    Args:
        gen: source of chance.
        grid: (N, 2, S, S) warped coordinates.
        frames: frames of each image; cells drift a little from frame to frame.
        across: cells a side, at most 15 (labels stay below 256).
        fill: 1 leaves only walls between the cells; less makes round blobs of this share of the pitch.
        gap: thickness of the walls as a share of the pitch.
    """
    images = grid.shape[0] // frames
    half = F.interpolate(grid, scale_factor=0.5, mode="bilinear", align_corners=False)
    jitter = uniform(gen, (images, 1, 2, across, across), -0.32, 0.32)
    drift = uniform(gen, (images, 1, 2, across, across), -0.06, 0.06)
    steps = torch.arange(frames, device=gen.device).view(1, frames, 1, 1, 1)
    offset = (jitter + steps * drift).flatten(0, 1).flatten(2)
    kept = uniform(gen, (images, across * across)) < (1.0 if fill >= 1 else 0.8)
    reach = uniform(gen, (images, across * across), 0.55, 1.0) * fill * 0.6
    per_frame = [t.repeat_interleave(frames, 0) for t in (kept, reach)]
    return _nearest_cell(half * across, offset, across, fill >= 1, gap, *per_frame)


def _nearest_cell(
    scaled: torch.Tensor,
    offset: torch.Tensor,
    across: int,
    walls: bool,
    gap: float,
    kept: torch.Tensor,
    reach: torch.Tensor,
) -> torch.Tensor:
    """Label of the nearest lattice site among the nine around each pixel, at twice the grid's size."""
    n, _, s, _ = scaled.shape
    base = scaled.floor()
    best = torch.full((n, s, s), 9.0, device=scaled.device)
    second = best.clone()
    label = torch.zeros((n, s, s), dtype=torch.long, device=scaled.device)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            ix = (base[:, 0] + dx).clamp(0, across - 1).long()
            iy = (base[:, 1] + dy).clamp(0, across - 1).long()
            site = iy * across + ix
            flat = site.flatten(1)
            ox = offset[:, 0].gather(1, flat).view_as(best)
            oy = offset[:, 1].gather(1, flat).view_as(best)
            distance = torch.hypot(scaled[:, 0] - ix - 0.5 - ox, scaled[:, 1] - iy - 0.5 - oy)
            new = site + 1 != label
            closer = new & (distance < best)
            second = torch.where(closer, best, torch.where(new, torch.minimum(second, distance), second))
            label = torch.where(closer, site + 1, label)
            best = torch.where(closer, distance, best)
    flat = (label - 1).clamp(min=0).flatten(1)
    limit = reach.gather(1, flat).view_as(best)
    keep = kept.gather(1, flat).view_as(best)
    inside = (second - best > gap) & keep & ((best < limit) if not walls else torch.ones_like(keep))
    label = torch.where(inside, label, torch.zeros_like(label))
    return label.repeat_interleave(2, 1).repeat_interleave(2, 2)
