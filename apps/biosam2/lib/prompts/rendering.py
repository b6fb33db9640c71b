"""Prompts drawn as a low-resolution mask, for weights that were trained to see them so.

SAM 2's mask-prompt input takes logits at a quarter of the network's resolution. A small network
learns to tell objects apart much sooner when a box and clicks also arrive through that door.
"""

from __future__ import annotations

import torch

__all__ = ["LOGIT_LIMIT", "render_prompts"]

LOGIT_LIMIT = 6.0  # logits of `previous` beyond this are clipped: a sigmoid of 0.9975 is certain enough
DOME_HEIGHT = 3.0  # a box's centre; its corners get minus this
OUTSIDE_BOX = -LOGIT_LIMIT
CLICK_REACH = 1 / 16  # of the image's side: where a click's bump has fallen to 1/e
DISC_RADIUS = 1 / 42  # of the image's side: one and a half cells of the rendered mask

_NEGATIVE, _POSITIVE, _BOX_LOWER, _BOX_UPPER = 0, 1, 2, 3
_FAR = 1e6


def _cell_centres(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """X of shape (1, 1, G) and y of shape (1, G, 1): centres of the mask's cells in network pixels."""
    grid = (torch.arange(size // 4, device=device, dtype=torch.float32) + 0.5) * 4 - 0.5
    return grid[None, None, :], grid[None, :, None]


def _nearest(coords: torch.Tensor, wanted: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(B, G, G) distance in pixels of every cell to the nearest of the wanted points, far where none."""
    far = torch.full((coords.shape[0], y.shape[1], x.shape[2]), _FAR, device=coords.device)
    for n in range(coords.shape[1]):
        dx, dy = x - coords[:, n, 0, None, None], y - coords[:, n, 1, None, None]
        distance = torch.sqrt(dx * dx + dy * dy)
        far = torch.where(wanted[:, n, None, None], torch.minimum(far, distance), far)
    return far


def _dome(lower: torch.Tensor, upper: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(B, G, G) logits of boxes: a paraboloid that is zero on the inscribed ellipse, a wall outside.

    Args:
        lower: (B, 2) corner x0, y0 in network pixels.
        upper: (B, 2) corner x1, y1 in network pixels.
        x: (1, 1, G) cell centres.
        y: (1, G, 1) cell centres.
    """
    half = ((upper - lower) / 2).clamp(min=2.0)  # a box thinner than a cell still fills one
    centre = (upper + lower) / 2
    u = (x - centre[:, 0, None, None]) / half[:, 0, None, None]
    v = (y - centre[:, 1, None, None]) / half[:, 1, None, None]
    inside = (u.abs() <= 1) & (v.abs() <= 1)
    return torch.where(inside, DOME_HEIGHT * (1 - u * u - v * v), torch.full_like(u + v, OUTSIDE_BOX))


def render_prompts(
    coords: torch.Tensor,
    labels: torch.Tensor,
    image_size: int,
    previous: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw prompts as the logits of a low-resolution mask for SAM 2's mask-prompt input.

    A box is a dome: positive in its inscribed ellipse, negative in its corners and outside. A click
    is a disc of its sign, stamped over the box or over `previous`; with neither, its bump fades over
    the whole image, so that every cell knows how far the nearest click is. With `previous`, the box
    is left to the sparse prompts.

    Args:
        coords: (B, N, 2) points as (x, y) in network pixels, pixel centres at whole numbers.
        labels: (B, N) integers: 1 foreground, 0 background, 2 and 3 a box's lower and upper corner,
            -1 padding. At most one box in a row.
        image_size: side of the square network input in pixels, a multiple of 4.
        previous: (B, 1, image_size / 4, image_size / 4) logits of the mask to correct, or None.

    Returns:
        (B, 1, image_size / 4, image_size / 4) float32 logits within [-LOGIT_LIMIT, LOGIT_LIMIT].

    Raises:
        ValueError: the shapes of `coords`, `labels` and `previous` do not belong together.
    """
    if coords.ndim != 3 or coords.shape[2] != 2 or labels.shape != coords.shape[:2]:
        raise ValueError(
            f"coords {tuple(coords.shape)} and labels {tuple(labels.shape)} must be (B, N, 2) and (B, N)"
        )
    expected = (coords.shape[0], 1, image_size // 4, image_size // 4)
    if previous is not None and tuple(previous.shape) != expected:
        raise ValueError(f"previous must have shape {expected}, got {tuple(previous.shape)}")
    coords = coords.float()
    x, y = _cell_centres(image_size, coords.device)
    positive = _nearest(coords, labels == _POSITIVE, x, y)
    negative = _nearest(coords, labels == _NEGATIVE, x, y)
    reach = CLICK_REACH * image_size
    canvas = LOGIT_LIMIT * (torch.exp(-positive / reach) - torch.exp(-negative / reach))
    base, has_base = _base(coords, labels, x, y, previous)
    on_disc = torch.minimum(positive, negative) <= DISC_RADIUS * image_size
    stamp = torch.where(positive <= negative, LOGIT_LIMIT, -LOGIT_LIMIT)
    over_base = torch.where(on_disc, stamp, base)
    return torch.where(has_base, over_base, canvas)[:, None].clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def _base(
    coords: torch.Tensor,
    labels: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    previous: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What clicks are stamped on: (B, G, G) logits, and (B, 1, 1) whether there is anything."""
    if previous is not None:
        everywhere = torch.ones(coords.shape[0], 1, 1, dtype=torch.bool, device=coords.device)
        return previous[:, 0].float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT), everywhere
    is_lower, is_upper = labels == _BOX_LOWER, labels == _BOX_UPPER
    lower = (coords * is_lower[..., None]).sum(1)
    upper = (coords * is_upper[..., None]).sum(1)
    has_box = (is_lower.any(1) & is_upper.any(1))[:, None, None]
    return _dome(lower, upper, x, y), has_box
