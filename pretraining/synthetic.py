"""Synthetic scenes: seven styles of random label maps and looks, made on the training device.

A style is a way to lay out objects and to give them intensities. The curriculum's `level` in [0, 1]
adds objects, styles, texture and noise, and takes contrast away.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pretraining.looks import Look, colourise, degrade, paint_intensities
from pretraining.scenes import Scenes, concatenate
from pretraining.shapes import Stars, along_axes, cells, paint_stars, uniform, warped_grid

__all__ = ["STYLES", "synthetic_scenes"]


def _stars(
    gen: torch.Generator, images: int, frames: int, count: int, size: tuple[float, float], spread: float
) -> Stars:
    """Random shapes that move and, as a ball from slice to slice, grow, shrink and end; sizes log-uniform."""
    shape = (images, 1, count)
    steps = torch.arange(frames, device=gen.device).view(1, frames, 1)
    low, high = (torch.tensor(v).log().item() for v in size)
    a = uniform(gen, shape, low, high).exp()
    b = a * uniform(gen, shape, -0.9, 0.5).exp()
    height = uniform(gen, shape, -0.9, 0.9)
    heights = height + uniform(gen, shape, 0.02, 0.45) * steps
    growth = ((1 - heights.square()).clamp(min=0) / (1 - height.square())).sqrt()
    x = uniform(gen, shape, 0.5 - spread, 0.5 + spread) + uniform(gen, shape, -0.02, 0.02) * steps
    y = uniform(gen, shape, 0.5 - spread, 0.5 + spread) + uniform(gen, shape, -0.02, 0.02) * steps
    angle = uniform(gen, shape, 0, 3.1416) + 0.0 * steps
    lobe = uniform(gen, shape, -0.22, 0.22) + 0.0 * steps
    parts = (x, y, a * growth, b.clamp(min=0.008) * growth, angle, lobe)
    return Stars(*(t.flatten(0, 1) for t in parts))


def _ellipse(
    gen: torch.Generator,
    images: int,
    frames: int,
    a: tuple[float, float],
    b: tuple[float, float],
    scale: float = 1.0,
) -> Stars:
    """One large ellipse near the centre: a body or a head."""
    shape = (images, 1)

    def still(t: torch.Tensor) -> torch.Tensor:
        return t.repeat_interleave(frames, 0)

    x, y = still(uniform(gen, shape, 0.46, 0.54)), still(uniform(gen, shape, 0.46, 0.54))
    zero = torch.zeros_like(x)
    return Stars(
        x, y, still(uniform(gen, shape, *a)) * scale, still(uniform(gen, shape, *b)) * scale, zero, zero
    )


def _contrasted(
    gen: torch.Generator, base: torch.Tensor, count: int, least: float, most: float
) -> torch.Tensor:
    """(images, count) intensities that differ from `base` (images, 1) by least..most either way."""
    step = uniform(gen, (base.shape[0], count), least, most)
    up = uniform(gen, step.shape) < 0.5
    value = torch.where(up, base + step, base - step)
    return torch.where((value < 0) | (value > 1), torch.where(up, base - step, base + step), value).clamp(
        0, 1
    )


def _empty(grid: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(grid[:, 0], dtype=torch.long)


def _least_contrast(level: float) -> float:
    return 0.4 - 0.34 * level


# Labels, their intensities, the number of the first object, and the look.
Drawing = tuple[torch.Tensor, torch.Tensor, int, Look]


def _generic(gen: torch.Generator, images: int, frames: int, size: int, level: float) -> Drawing:
    """Any shapes of any intensity on plain ground."""
    count = 1 + round(7 * level * float(uniform(gen, (1,), 0.3, 1.0)))
    grid = warped_grid(gen, images, frames, size, 0.02 + 0.05 * level)
    small = 0.12 - 0.1 * level
    labels = paint_stars(_stars(gen, images, frames, count, (small, 0.4), 0.42), grid, _empty(grid), 1)
    ground = uniform(gen, (images, 1))
    objects = _contrasted(gen, ground, count, _least_contrast(level), 0.8)
    return labels, torch.cat([ground, objects], 1), 1, Look(texture=0.1, noise=0.2, speckle=0.2, bias=0.3)


def _ct(gen: torch.Generator, images: int, frames: int, size: int, level: float) -> Drawing:
    """A body on black: fat, organs of low contrast, bright bones, dark gas, a spine."""
    grid = warped_grid(gen, images, frames, size, 0.03)
    wall = _ellipse(gen, images, frames, (0.36, 0.5), (0.26, 0.47))
    inner = Stars(wall.x, wall.y, wall.a * 0.92, wall.b * 0.9, wall.angle, wall.lobe)
    labels = paint_stars(inner, grid, paint_stars(wall, grid, _empty(grid), 1), 2)
    big, small = 2, 5
    organs = _stars(gen, images, frames, big, (0.12, 0.34), 0.22)
    labels = paint_stars(organs, grid, labels, 3)
    labels = paint_stars(_stars(gen, images, frames, small, (0.018, 0.13), 0.3), grid, labels, 3 + big)
    outside = labels.clone()
    inside_body = paint_stars(wall, grid, _empty(grid), 1) > 0
    labels = torch.where(inside_body, outside, torch.zeros_like(outside))
    air = uniform(gen, (images, 1), 0, 0.05) * (uniform(gen, (images, 1)) < 0.8)
    fat, tissue = uniform(gen, (images, 1), 0.05, 0.3), uniform(gen, (images, 1), 0.3, 0.6)
    organ = _contrasted(gen, tissue, big + small, 0.3 * _least_contrast(level) + 0.03, 0.3)
    kind = uniform(gen, organ.shape)
    organ = torch.where(kind < 0.15, uniform(gen, organ.shape, 0.8, 1.0), organ)
    organ = torch.where(kind > 0.92, uniform(gen, organ.shape, 0.0, 0.1), organ)
    return labels, torch.cat([air, fat, tissue, organ], 1), 3, Look(texture=0.05, noise=0.12, bias=0.05)


def _head(gen: torch.Generator, images: int, frames: int, size: int, level: float) -> Drawing:
    """A head: scalp, brain, ventricles and a lesion or two, often bright; sometimes stripped."""
    grid = warped_grid(gen, images, frames, size, 0.03)
    scalp = _ellipse(gen, images, frames, (0.3, 0.46), (0.34, 0.48))
    thick = uniform(gen, (images, 1), 0.8, 0.93).repeat_interleave(frames, 0)
    brain = Stars(scalp.x, scalp.y, scalp.a * thick, scalp.b * thick, scalp.angle, scalp.lobe)
    labels = paint_stars(brain, grid, paint_stars(scalp, grid, _empty(grid), 1), 2)
    count = 4
    labels = paint_stars(_stars(gen, images, frames, count, (0.02, 0.2), 0.2), grid, labels, 3)
    labels = torch.where(paint_stars(scalp, grid, _empty(grid), 1) > 0, labels, torch.zeros_like(labels))
    air = torch.zeros((images, 1), device=gen.device)
    stripped = uniform(gen, (images, 1)) < 0.4
    skin = torch.where(stripped, air, uniform(gen, (images, 1), 0.2, 1.0))
    tissue = uniform(gen, (images, 1), 0.25, 0.65)
    lesions = _contrasted(gen, tissue, count, 0.5 * _least_contrast(level) + 0.04, 0.5)
    return labels, torch.cat([air, skin, tissue, lesions], 1), 3, Look(texture=0.12, noise=0.12, bias=0.35)


def _ultrasound(gen: torch.Generator, images: int, frames: int, size: int, level: float) -> Drawing:
    """Strong speckle; mostly dark cavities in brighter tissue."""
    count = 1 + round(3 * level)
    grid = warped_grid(gen, images, frames, size, 0.06)
    labels = paint_stars(_stars(gen, images, frames, count, (0.05, 0.35), 0.33), grid, _empty(grid), 1)
    ground = uniform(gen, (images, 1), 0.3, 0.7)
    objects = _contrasted(gen, ground, count, 0.5 * _least_contrast(level) + 0.08, 0.5)
    dark = uniform(gen, objects.shape) < 0.6
    objects = torch.where(dark, objects * 0.3, objects)
    look = Look(texture=0.15, noise=0.1, speckle=0.8, bias=0.5, blur=1.6)
    return labels, torch.cat([ground, objects], 1), 1, look


def _chambers(gen: torch.Generator, images: int, frames: int, size: int, level: float) -> Drawing:
    """Two dark cavities of one heart in speckled tissue, with a valve between them that opens and closes."""
    grid = warped_grid(gen, images, frames, size, 0.05)
    steps = torch.arange(frames, device=gen.device).view(1, frames)
    beat = steps * uniform(gen, (images, 1), 0.2, 1.2) + uniform(gen, (images, 1), 0, 6.2832)

    def still(low: float, high: float) -> torch.Tensor:
        return uniform(gen, (images, 1), low, high).expand(-1, frames)

    along = still(0.18, 0.45) * (1 + still(0.0, 0.12) * torch.sin(beat))
    across = along * still(0.35, 0.75) * (1 + still(0.0, 0.2) * torch.sin(beat))
    angle = still(0, 6.2832)
    parts = (still(0.35, 0.65), still(0.35, 0.65), along, across, angle, still(-0.15, 0.15))
    heart = Stars(*(t.reshape(-1, 1) for t in parts))
    u, v = along_axes(grid, *(t.reshape(-1, 1, 1) for t in parts[:5]))
    plane = (still(-0.35, 0.35) + 0.08 * torch.cos(beat)).reshape(-1, 1, 1)
    bulge = still(-0.25, 0.25).reshape(-1, 1, 1)
    opening = (still(0.0, 0.9) * torch.sin(beat).clamp(min=0).sqrt()).reshape(-1, 1, 1)
    beyond = u - plane - bulge * v * v
    inside = paint_stars(heart, grid, _empty(grid), 1) > 0
    leaflet = (
        inside
        & (beyond.abs() * along.reshape(-1, 1, 1) < still(0.006, 0.02).reshape(-1, 1, 1))
        & (v.abs() > opening)
    )
    labels = torch.where(inside, torch.where(beyond < 0, 2, 3), _empty(grid))
    labels = torch.where(leaflet, torch.ones_like(labels), labels)
    tissue = uniform(gen, (images, 1), 0.25, 0.6)
    blood = tissue * uniform(gen, (images, 1), 0.1, 0.8 - 0.6 * _least_contrast(level))
    valve = tissue + uniform(gen, (images, 1), 0.0, 0.4)
    look = Look(texture=0.15, noise=0.1, speckle=0.8, bias=0.6, blur=1.6)
    return labels, torch.cat([tissue, valve, blood, blood], 1), 2, look


def _blobs(gen: torch.Generator, images: int, frames: int, size: int, level: float) -> Drawing:
    """Microscopy: many small blobs, mostly bright on dark, touching here and there."""
    across = 2 + int(float(uniform(gen, (1,))) * 10 * level)
    grid = warped_grid(gen, images, frames, size, 0.02)
    fill = float(uniform(gen, (1,), 0.5, 0.95))
    labels = cells(gen, grid, frames, across, fill, gap=float(uniform(gen, (1,), 0.02, 0.12)))
    ground = uniform(gen, (images, 1), 0.0, 0.25)
    objects = (
        ground
        + 0.8 * _least_contrast(level)
        + uniform(gen, (images, across * across)) * uniform(gen, (images, 1), 0.1, 0.7)
    )
    table = torch.cat([ground, objects], 1)
    inverted = uniform(gen, (images, 1)) < 0.2
    return labels, torch.where(inverted, 1 - table, table).clamp(0, 1), 1, Look(texture=0.1, noise=0.15)


def _membranes(gen: torch.Generator, images: int, frames: int, size: int, level: float) -> Drawing:
    """Cells or regions that fill the plane, between thin walls or side by side."""
    across = 2 + int(float(uniform(gen, (1,))) * 8 * level)
    grid = warped_grid(gen, images, frames, size, 0.05)
    walled = float(uniform(gen, (1,))) < 0.6
    labels = cells(
        gen, grid, frames, across, 1.0, gap=float(uniform(gen, (1,), 0.08, 0.22)) if walled else 0.0
    )
    inside = uniform(gen, (images, 1), 0.0, 1.0)
    wall = _contrasted(gen, inside, 1, 0.3, 0.6)
    spread = 0.12 if walled else 0.7
    objects = (inside + (uniform(gen, (images, across * across)) - 0.5) * spread).clamp(0, 1)
    return labels, torch.cat([wall, objects], 1), 1, Look(texture=0.2, noise=0.15, bias=0.15)


STYLES: dict[str, Callable[..., Drawing]] = {
    "generic": _generic,
    "ct": _ct,
    "head": _head,
    "ultrasound": _ultrasound,
    "chambers": _chambers,
    "blobs": _blobs,
    "membranes": _membranes,
}
_SHARES = {
    "generic": 0.15,
    "ct": 0.24,
    "head": 0.14,
    "ultrasound": 0.07,
    "chambers": 0.2,
    "blobs": 0.12,
    "membranes": 0.08,
}


def _pick_style(gen: torch.Generator, level: float) -> str:
    if float(uniform(gen, (1,))) > min(1.0, 2 * level):
        return "generic"
    weights = torch.tensor(list(_SHARES.values()), device=gen.device)
    return list(_SHARES)[int(torch.multinomial(weights, 1, generator=gen))]


def synthetic_scenes(
    gen: torch.Generator,
    images: int,
    size: int,
    level: float,
    *,
    frames: int = 1,
    groups: int = 4,
    style: str | None = None,
) -> Scenes:
    """Make a batch of scenes.

    Args:
        gen: source of chance; its device is where the work is done.
        images: images B.
        size: side S in pixels, even.
        level: difficulty in [0, 1].
        frames: frames T of each image.
        groups: how many styles share the batch.
        style: one of STYLES to use it alone.
    """
    sizes = [len(part) for part in torch.arange(images).tensor_split(min(groups, images))]
    parts = []
    for count in sizes:
        name = style or _pick_style(gen, level)
        labels, table, first, look = STYLES[name](gen, count, frames, size, level)
        picture = paint_intensities(gen, labels, frames, table, look.texture * (0.2 + 0.8 * level))
        picture = degrade(gen, picture, frames, look, 0.1 + 0.9 * level)
        images_out = colourise(gen, picture, frames, look.colour)
        firsts = torch.full((count,), first, device=labels.device)
        parts.append(Scenes(images_out, labels.view(count, frames, size, size), firsts))
    return concatenate(parts)
