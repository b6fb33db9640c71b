"""Weights between those that a training started from and those that it came to.

Few labels teach much of what they show and unteach a little of everything else; on the way between the two
lie weights that have most of the first and little of the second (Wortsman et al. 2022, WiSE-FT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from lib.engine.network import Network

# Parts of the way that are tried, from the end of it: each costs one measurement.
SHARES = (1.0, 0.6, 0.3)


def blend(
    network: Network,
    start: Mapping[str, torch.Tensor],
    learned: Mapping[str, torch.Tensor],
    worth: Callable[[Network], tuple[bool, float]],
) -> float:
    """Puts the best weights on the way into a network.

    Args:
        network: whose parameters are set.
        start: trained parameters before the training, by name.
        learned: the same after it.
        worth: of the network as it then is; the larger, the better.

    Returns:
        The part of the way, 0 to 1.
    """
    worths = {}
    for share in SHARES:
        _set(network, start, learned, share)
        worths[share] = worth(network)
    best = max(SHARES, key=lambda share: worths[share])
    _set(network, start, learned, best)
    return best


def _set(
    network: Network, start: Mapping[str, torch.Tensor], learned: Mapping[str, torch.Tensor], share: float
) -> None:
    mixed = {name: torch.lerp(start[name], value, share) for name, value in learned.items()}
    network.load_state_dict(mixed, strict=False)
