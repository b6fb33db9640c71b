"""Prompts drawn as a low-resolution mask, for weights that were trained to see them so.

SAM 2's mask-prompt input takes logits at a quarter of the network's resolution. What is drawn there is a
first guess at the mask, from the prompts and the image's edges alone: how much nearer a cell is to the object
than to the background, on a way that avoids edges. A small network learns to mend a guess much sooner than
it learns to tell objects apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

FAR = 1e3  # distance from nothing
CONTRAST = 5.0  # a step from black to white is as long as this many sides of the image
CELL = 4  # network pixels along a side of a cell of the rendered mask
LOGIT_LIMIT = 6.0  # logits beyond this are clipped: a sigmoid of 0.9975 is certain enough
GUIDE_CONTRAST = (
    0.2  # standard deviation that a guide is brought to, so that distances mean the same everywhere
)
NEAR = 0.3  # geodesic distance from a click at which its own word counts neither for nor against
LOG_SCALE = 2.0  # logits for each natural logarithm of a distance
CORE = 0.5  # of a box's half sides: this inner ellipse counts as object
DOME_HEIGHT = 3.0  # logits at a box's centre; zero on its inscribed ellipse, minus this in its corners
OUTSIDE_BOX = -LOGIT_LIMIT
EDGE_WEIGHT = 0.25  # of the edges, beside the neighbour's logits and the likeness of the greys
LIKENESS_LIMIT = LOGIT_LIMIT  # most that a cell's grey says: enough to overrule the other two
LEAST_SPREAD = 0.04  # standard deviation of greys: an object that looks plainer is so by chance
DRIFT = 2  # cells that an object's edge may move from one slice to the next
DISC_RADIUS = 1 / 42  # of the image's side: one and a half cells of the rendered mask

_NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))
_NEGATIVE, _POSITIVE, _BOX_LOWER, _BOX_UPPER = 0, 1, 2, 3
# Steps between two looks whether distances have settled; further steps then change nothing.
_LOOK_EVERY = 4
_CLOSE = 0.008  # half a cell in sides of the image: no distance is shorter


def make_guide(levels: torch.Tensor) -> torch.Tensor:
    """The image as the rendering sees it: grey, a cell for each value, of one contrast.

    Args:
        levels: (B, 3, S, S) in [0, 1], S a multiple of 4.

    Returns:
        (B, 1, S / 4, S / 4) float32.
    """
    grey = F.avg_pool2d(levels.float().mean(1, keepdim=True), CELL)
    return grey * (GUIDE_CONTRAST / (grey.std((2, 3), keepdim=True) + 0.02))


@torch.no_grad()
def render_prompts(
    coords: torch.Tensor, labels: torch.Tensor, guide: torch.Tensor, previous: torch.Tensor | None = None
) -> torch.Tensor:
    """Draw prompts as the logits of a low-resolution mask for SAM 2's mask-prompt input.

    Clicks alone: positive near the positive ones, falling with the logarithm of the geodesic distance, and
    negative where a negative one is nearer. A box: positive where a cell is nearer to the box's core than to
    its outside, the more the nearer it is to the centre. Each click is stamped as a disc of its sign, also
    over ``previous``, beside which nothing else is drawn.

    Args:
        coords: (B, N, 2) points as (x, y) in network pixels, pixel centres at whole numbers.
        labels: (B, N) integers: 1 foreground, 0 background, 2 and 3 a box's lower and upper corner,
            -1 padding. At most one box in a row.
        guide: (B, 1, G, G) of ``make_guide``.
        previous: (B, 1, G, G) logits of the mask to correct, or None.

    Returns:
        (B, 1, G, G) float32 logits within [-LOGIT_LIMIT, LOGIT_LIMIT].

    Raises:
        ValueError: the shapes do not belong together.
    """
    _require_shapes(coords, labels, guide, previous)
    coords = coords.float()
    x, y = _cell_centres(guide)
    positive = _nearest(coords, labels == _POSITIVE, x, y)
    negative = _nearest(coords, labels == _NEGATIVE, x, y)
    guess = previous[:, 0].float() if previous is not None else _first_guess(coords, labels, guide[:, 0])
    radius = DISC_RADIUS * CELL * guide.shape[-1]
    stamp = torch.where(positive <= negative, LOGIT_LIMIT, -LOGIT_LIMIT)
    drawn = torch.where(torch.minimum(positive, negative) <= radius, stamp, guess)
    return drawn[:, None].clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


@torch.no_grad()
def render_neighbour(logits: torch.Tensor, neighbour: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    """Draw the mask of the slice beside this one as a first guess at the mask here.

    Three things are added: the neighbour's logits; how much nearer a cell is to what lies deep in the
    neighbour's mask than to what lies far outside it, on a way that avoids the edges of this slice; and how
    much likelier the cell's grey is in the neighbour's object than in the neighbour's surroundings. Where the
    object has ended, the last one speaks against it everywhere.

    Args:
        logits: (B, 1, G, G) of the neighbour's mask; nowhere positive where it does not hold the object.
        neighbour: (B, 1, G, G) of ``make_guide``, of the neighbour.
        guide: the same of this slice.

    Returns:
        (B, 1, G, G) float32 logits within [-LOGIT_LIMIT, LOGIT_LIMIT]; all at the lower end where the
        neighbour does not hold the object.
    """
    logits = logits.float()
    mask = (logits > 0).float()
    reach = 2 * DRIFT + 1
    deep = -F.max_pool2d(-mask, 3, stride=1, padding=1) > 0
    surest = (logits >= logits.amax((2, 3), keepdim=True)) & (mask > 0)
    far = F.max_pool2d(mask, reach, stride=1, padding=DRIFT) == 0
    seeds = torch.cat([deep | surest, far])[:, 0]
    to_object, to_background = geodesic_distance(guide[:, 0].repeat(2, 1, 1), seeds).chunk(2)
    remoteness = LOG_SCALE * torch.log((to_background + _CLOSE) / (to_object + _CLOSE))
    surroundings = F.max_pool2d(mask, 9, stride=1, padding=4) - F.max_pool2d(mask, 3, stride=1, padding=1)
    inside = torch.where(deep.any(2, keepdim=True).any(3, keepdim=True), deep.float(), mask)
    likeness = _log_likelihood(guide, neighbour, inside) - _log_likelihood(guide, neighbour, surroundings)
    likeness = F.avg_pool2d(likeness.clamp(-LIKENESS_LIMIT, LIKENESS_LIMIT), 3, 1, 1, count_include_pad=False)
    moved = logits.clamp(-LOGIT_LIMIT / 2, LOGIT_LIMIT / 2) + EDGE_WEIGHT * remoteness[:, None] + likeness
    return torch.where(far, -LOGIT_LIMIT, moved).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def _log_likelihood(guide: torch.Tensor, sample: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """(B, 1, G, G) of each grey of a guide, under the normal distribution of a sample's greys in a region."""
    count = where.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (sample * where).sum((2, 3), keepdim=True) / count
    spread = ((sample - mean).square() * where).sum((2, 3), keepdim=True) / count
    deviation = spread.sqrt().clamp(min=LEAST_SPREAD)
    return -((guide - mean) / deviation).square() / 2 - deviation.log()


def _require_shapes(
    coords: torch.Tensor, labels: torch.Tensor, guide: torch.Tensor, previous: torch.Tensor | None
) -> None:
    if coords.ndim != 3 or coords.shape[2] != 2 or labels.shape != coords.shape[:2]:
        raise ValueError(
            f"coords {tuple(coords.shape)} and labels {tuple(labels.shape)} must be (B, N, 2) and (B, N)"
        )
    if guide.ndim != 4 or guide.shape[:2] != (len(coords), 1) or guide.shape[2] != guide.shape[3]:
        raise ValueError(f"guide {tuple(guide.shape)} must be (B, 1, G, G) with B = {len(coords)}")
    if previous is not None and previous.shape != guide.shape:
        raise ValueError(f"previous {tuple(previous.shape)} must have the guide's shape {tuple(guide.shape)}")


def _cell_centres(guide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """X of shape (1, 1, G) and y of shape (1, G, 1): centres of the cells in network pixels."""
    grid = (torch.arange(guide.shape[-1], device=guide.device, dtype=torch.float32) + 0.5) * CELL - 0.5
    return grid[None, None, :], grid[None, :, None]


def _nearest(coords: torch.Tensor, wanted: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(B, G, G) straight distance in pixels of every cell to the nearest of the wanted points."""
    offset_x = x[:, None] - coords[:, :, 0, None, None]
    offset_y = y[:, None] - coords[:, :, 1, None, None]
    distance = torch.sqrt(offset_x * offset_x + offset_y * offset_y)
    return torch.where(wanted[:, :, None, None], distance, FAR * FAR).amin(1)


def _first_guess(coords: torch.Tensor, labels: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    """(B, G, G) logits from geodesic distances to the clicks, and to the core and the outside of the box."""
    dome, has_box = _dome(coords, labels, *_cell_centres(guide[:, None]))
    core = has_box & (dome >= dome.amax((1, 2), keepdim=True).clamp(max=1 - CORE**2))
    clicked, refused = (_cells_of(coords, labels == sign, guide) for sign in (_POSITIVE, _NEGATIVE))
    seeds = torch.cat([clicked | core, refused | (has_box & (dome < -1))])
    # Outside a box its distances count for nothing.
    wanted = (dome >= -1) | ~has_box
    distances = geodesic_distance(guide.repeat(2, 1, 1), seeds, wanted.repeat(2, 1, 1))
    to_object, to_background = distances.chunk(2)
    nearness = LOG_SCALE * torch.log(NEAR / (to_object + _CLOSE))
    remoteness = LOG_SCALE * torch.log((to_background + _CLOSE) / (to_object + _CLOSE))
    from_clicks = nearness + 2 * remoteness.clamp(max=0)
    from_box = torch.where(dome < -1, OUTSIDE_BOX, DOME_HEIGHT * dome + remoteness)
    nothing = ~seeds.chunk(2)[0].any((1, 2), keepdim=True)
    return torch.where(has_box, from_box, from_clicks.masked_fill(nothing, 0.0))


def _cells_of(coords: torch.Tensor, wanted: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    """(B, G, G) whether a wanted click lies in the cell: each in one, also on the corner of four."""
    x, y = _cell_centres(guide[:, None])
    from_x = coords[:, :, 0, None, None] - x[:, None]
    from_y = coords[:, :, 1, None, None] - y[:, None]
    half = CELL / 2
    inside = (from_x >= -half) & (from_x < half) & (from_y >= -half) & (from_y < half)
    return (inside & wanted[:, :, None, None]).any(1)


def _dome(
    coords: torch.Tensor, labels: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, G, G) paraboloid, 1 at the centre, 0 on the inscribed ellipse, -2 outside; (B, 1, 1) has a box."""
    is_lower, is_upper = labels == _BOX_LOWER, labels == _BOX_UPPER
    lower, upper = (coords * is_lower[..., None]).sum(1), (coords * is_upper[..., None]).sum(1)
    half = ((upper - lower) / 2).clamp(min=CELL / 2)[..., None, None]  # a thinner box still fills a cell
    centre = ((upper + lower) / 2)[..., None, None]
    u, v = (x - centre[:, 0]) / half[:, 0], (y - centre[:, 1]) / half[:, 1]
    inside = (u.abs() <= 1) & (v.abs() <= 1)
    dome = torch.where(inside, 1 - u * u - v * v, -2.0)
    return dome, (is_lower.any(1) & is_upper.any(1))[:, None, None]


@torch.no_grad()
def geodesic_distance(
    guide: torch.Tensor, seeds: torch.Tensor, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """Geodesic distance of every cell to the nearest seed.

    A step to one of the eight neighbours costs sqrt(length^2 + (CONTRAST * difference in grey)^2), with
    lengths in sides of the image (Wang et al., DeepIGeoS, TPAMI 2019, equation 1, solved by relaxation).

    Args:
        guide: (B, G, G) grey levels, about 0 to 1.
        seeds: (B, G, G) bool.
        wanted: (B, G, G) bool, cells whose distances are used; None for all. The others may not have settled.

    Returns:
        (B, G, G) float32, 0 at the seeds, ``FAR`` where there are none.
    """
    side = guide.shape[-1]
    costs = list(_step_costs(guide.float(), side))
    around = torch.full((len(guide), side + 2, side + 2), FAR, device=guide.device)
    distance = _shifted(around, 0, 0, side).masked_fill_(seeds, 0.0)
    neighbours = [_shifted(around, dy, dx, side) for dy, dx in _NEIGHBOURS]
    through, shorter = torch.empty_like(costs[0]), torch.empty_like(costs[0])
    # A path of more steps than this winds about more than any organ does.
    for step in range(3 * side // 2):
        shorter.copy_(distance)
        for neighbour, cost in zip(neighbours, costs, strict=True):
            torch.minimum(shorter, torch.add(neighbour, cost, out=through), out=shorter)
        if step % _LOOK_EVERY == 0:
            is_changed = shorter != distance
            if not (is_changed if wanted is None else is_changed & wanted).any():
                break
        distance.copy_(shorter)
    return shorter


def _step_costs(guide: torch.Tensor, side: int) -> Iterator[torch.Tensor]:
    around = F.pad(guide[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    for dy, dx in _NEIGHBOURS:
        length = (dy * dy + dx * dx) / side**2
        difference = CONTRAST * (_shifted(around, dy, dx, side) - guide)
        yield torch.sqrt(length + difference * difference)


def _shifted(padded: torch.Tensor, dy: int, dx: int, side: int) -> torch.Tensor:
    return padded[:, 1 + dy : 1 + dy + side, 1 + dx : 1 + dx + side]
