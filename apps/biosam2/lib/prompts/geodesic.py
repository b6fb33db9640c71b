"""How far every cell of an image is from given cells, when crossing an edge is a long way."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

__all__ = ["FAR", "geodesic_distance"]

FAR = 1e3  # distance from nothing
CONTRAST = 5.0  # a step from black to white is as long as this many sides of the image

_NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


@torch.no_grad()
def geodesic_distance(guide: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Geodesic distance of every cell to the nearest seed.

    A step to one of the eight neighbours costs sqrt(length^2 + (CONTRAST * difference in grey)^2), with
    lengths in sides of the image (Wang et al., DeepIGeoS, TPAMI 2019, equation 1, solved by relaxation).

    Args:
        guide: (B, G, G) grey levels, about 0 to 1.
        seeds: (B, G, G) bool.

    Returns:
        (B, G, G) float32, 0 at the seeds, ``FAR`` where there are none.
    """
    side = guide.shape[-1]
    costs = list(_step_costs(guide.float(), side))
    distance = torch.where(seeds, 0.0, FAR)
    # A path of more steps than this winds about more than any organ does.
    for _ in range(3 * side // 2):
        around = F.pad(distance, (1, 1, 1, 1), value=FAR)
        shorter = distance
        for (dy, dx), cost in zip(_NEIGHBOURS, costs, strict=True):
            shorter = torch.minimum(shorter, _shifted(around, dy, dx, side) + cost)
        if torch.equal(shorter, distance):
            break
        distance = shorter
    return distance


def _step_costs(guide: torch.Tensor, side: int) -> Iterator[torch.Tensor]:
    around = F.pad(guide[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    for dy, dx in _NEIGHBOURS:
        length = (dy * dy + dx * dx) / side**2
        difference = CONTRAST * (_shifted(around, dy, dx, side) - guide)
        yield torch.sqrt(length + difference * difference)


def _shifted(padded: torch.Tensor, dy: int, dx: int, side: int) -> torch.Tensor:
    return padded[:, 1 + dy : 1 + dy + side, 1 + dx : 1 + dx + side]
