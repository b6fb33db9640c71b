"""Prompts for many masks at once, on the training device: boxes, clicks and corrections."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lib.prompts.rendering import CELL
from pretraining.shapes import uniform

__all__ = [
    "Prompts",
    "add_clicks",
    "boxes_of",
    "correction",
    "deepest_errors",
    "draw_boxes",
    "draw_clicks",
]

_CANDIDATES = 256
_MOST_EROSIONS = 24


class Prompts:
    """Sparse prompts of N objects: coords (N, K, 2) in network pixels (x, y), labels (N, K) int32."""

    def __init__(self, coords: torch.Tensor, labels: torch.Tensor) -> None:
        self.coords = coords
        self.labels = labels


def add_clicks(prompts: Prompts | None, coords: torch.Tensor, labels: torch.Tensor) -> Prompts:
    """Append clicks (N, M, 2) with labels (N, M)."""
    if prompts is None:
        return Prompts(coords, labels)
    return Prompts(torch.cat([prompts.coords, coords], 1), torch.cat([prompts.labels, labels], 1))


def boxes_of(masks: torch.Tensor) -> torch.Tensor:
    """(N, 4) tight half-open boxes x0, y0, x1, y1 of (N, S, S) masks; zeros for an empty mask."""
    columns, rows = masks.any(1).float(), masks.any(2).float()
    size = masks.shape[-1]
    some = columns.any(1).float()
    x0, y0 = columns.argmax(1), rows.argmax(1)
    x1, y1 = size - columns.flip(1).argmax(1), size - rows.flip(1).argmax(1)
    return torch.stack([x0, y0, x1, y1], 1).float() * some[:, None]


def draw_boxes(gen: torch.Generator, masks: torch.Tensor, jitter: float = 0.1) -> Prompts:
    """Boxes as two corners labelled 2 and 3; half are tight, the others jittered by N(0, jitter / 2)."""
    boxes = boxes_of(masks)
    width = (boxes[:, 2:] - boxes[:, :2]).clamp(min=2).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=gen, device=boxes.device) * width * jitter / 2
    noise = noise.clamp(-jitter * width, jitter * width)
    loose = uniform(gen, (len(boxes), 1)) < 0.5
    boxes = (boxes + torch.where(loose, noise, torch.zeros_like(noise))).clamp(0, masks.shape[-1])
    labels = torch.tensor([2, 3], dtype=torch.int32, device=boxes.device).expand(len(boxes), 2)
    return Prompts(boxes.view(-1, 2, 2), labels)


def _candidates(gen: torch.Generator, boxes: torch.Tensor, grow: float, size: int) -> torch.Tensor:
    """(N, _CANDIDATES, 2) whole pixels drawn inside boxes grown by a share of their sides."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    margin = (high - low) * grow + (4.0 if grow else 0.0)
    spots = uniform(gen, (len(boxes), _CANDIDATES, 2))
    spots = low - margin + spots * (high - low + 2 * margin)
    return spots.floor().clamp(0, size - 1)


def _at(maps: torch.Tensor, spots: torch.Tensor) -> torch.Tensor:
    """(N, M) values of (N, S, S) maps at whole pixels (N, M, 2) of x, y."""
    index = (spots[..., 1] * maps.shape[-1] + spots[..., 0]).long()
    return maps.flatten(1).gather(1, index)


def _pick(gen: torch.Generator, spots: torch.Tensor, score: torch.Tensor, count: int) -> torch.Tensor:
    """(N, count, 2) the candidates of highest score; ties are broken by chance."""
    score = score + uniform(gen, tuple(score.shape), 0.0, 1e-3)
    best = score.topk(count, dim=1).indices
    return spots.gather(1, best[..., None].expand(-1, -1, 2))


def draw_clicks(
    gen: torch.Generator, masks: torch.Tensor, positives: int, negatives: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random clicks in and around (N, S, S) masks.

    Half of the objects are clicked anywhere, half rather in their middle, as people do. Negative
    clicks fall near the object, outside it.

    Returns:
        coords (N, positives + negatives, 2) and labels, in random order.
    """
    size = masks.shape[-1]
    boxes = boxes_of(masks)
    spots = _candidates(gen, boxes, 0.0, size)
    inside = _at(masks, spots).float()
    depth = F.avg_pool2d(masks[:, None].float(), 4)
    depth = F.avg_pool2d(depth, 9, 1, 4, count_include_pad=False)[:, 0]
    middle = _at(depth, (spots / 4).floor())
    central = (uniform(gen, (len(masks), 1)) < 0.5).float()
    chance = uniform(gen, tuple(inside.shape))
    coords = _pick(gen, spots, inside * (1 + central * middle + (1 - central) * chance), positives)
    labels = torch.ones((len(masks), positives), dtype=torch.int32, device=masks.device)
    if negatives:
        spots = _candidates(gen, boxes, 0.35, size)
        outside = 1 - _at(masks, spots).float()
        coords = torch.cat([coords, _pick(gen, spots, outside, negatives)], 1)
        labels = torch.cat([labels, torch.zeros_like(labels[:, :1]).expand(-1, negatives)], 1)
        order = torch.randperm(positives + negatives, generator=gen, device=masks.device)
        coords, labels = coords[:, order], labels[:, order]
    return coords, labels


def deepest_errors(
    gen: torch.Generator, masks: torch.Tensor, predicted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One click where each error is deepest, as SAM 2 is trained and as people click.

    Args:
        gen: source of chance, which decides among equally deep places.
        masks: (N, S, S) bool, the truth.
        predicted: (N, S, S) bool.

    Returns:
        coords (N, 1, 2) and labels (N, 1): 1 where the object was missed, 0 where it was overrun. Where
        nothing is wrong, the click is a positive one in the middle of the object.
    """
    errors = torch.stack([masks & ~predicted, predicted & ~masks], 1)
    right = ~errors.flatten(1).any(1)
    errors[right, 0] = masks[right]
    cells = errors.unfold(2, CELL, CELL).unfold(3, CELL, CELL).flatten(4)  # (N, 2, S / 4, S / 4, 16)
    depth = _depth(cells.float().mean(4))
    best = (depth + uniform(gen, tuple(depth.shape), 0, 0.05) * (depth > 0)).flatten(1).argmax(1)
    pixels = cells.flatten(1, 3)[torch.arange(len(best), device=best.device), best].float()
    pixel = (pixels + uniform(gen, tuple(pixels.shape), 0, 0.5)).argmax(1)
    side = masks.shape[-1] // CELL
    x = best % side * CELL + pixel % CELL
    y = best % (side * side) // side * CELL + pixel // CELL
    return torch.stack([x, y], 1).float()[:, None], (best < side * side).int()[:, None]


def _depth(shares: torch.Tensor) -> torch.Tensor:
    """Distance in cells of each cell to what is not in the region, and to the border of the image.

    Args:
        shares: (N, C, G, G) share of each cell that lies in the region.
    """
    left = shares
    depth = torch.zeros_like(left)
    for _ in range(_MOST_EROSIONS):
        depth += left
        left = -F.max_pool2d(F.pad(-left, (1, 1, 1, 1)), 3, 1)
        if not bool(left.any()):
            break
    return depth + 0.1 * F.avg_pool2d(depth, 5, 1, 2)


def correction(
    gen: torch.Generator, masks: torch.Tensor, logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One click in the largest error of (N, 1, S/4, S/4) logits against (N, S, S) masks, somewhere in it.

    Returns:
        coords (N, 1, 2) and labels (N, 1): 1 where the object was missed, 0 where it was overrun.
    """
    truth = F.avg_pool2d(masks[:, None].float(), 4)
    predicted = (logits > 0).float()
    errors = torch.cat([(truth - predicted).clamp(min=0), (predicted - truth).clamp(min=0)], 1)
    wide = 0.5 * F.avg_pool2d(errors, 3, 1, 1) + F.avg_pool2d(errors, 7, 1, 3) + 0.02 * errors
    flat = wide.flatten(1)
    flat = flat * (1 + uniform(gen, tuple(flat.shape), 0, 0.1))
    best = flat.argmax(1)
    side = truth.shape[-1]
    missed = best < side * side
    cell = best % (side * side)
    inside = uniform(gen, (len(masks), 2), 0, 4).floor()
    coords = torch.stack([cell % side, cell // side], 1) * 4 + inside
    # The drawn pixel of the cell may lie on the other side of the border: then its own sign counts.
    own = _at(masks, coords[:, None])[:, 0]
    labels = torch.where(missed, own, own & ~missed).int()
    return coords[:, None], labels[:, None]
