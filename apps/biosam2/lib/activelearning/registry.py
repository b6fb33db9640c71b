"""The app's strategies by the names that clients ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.leases import LeaseBook
from lib.activelearning.selectors import SELECTORS
from lib.activelearning.strategy import NextImage
from lib.scoring.store import ScoreStore

RANDOM = "random"

_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "random": "Any image, by chance",
        "first": "The first image by name",
        "last": "The last image by name",
        "diversity": "The image least like those that are labelled",
        "uncertainty": "The image that the model is least sure about",
        "hybrid": "Diverse images first, then those that the model is unsure about, of every label",
    }
)


def all_strategies(
    default: str,
    lease_minutes: float,
    scores: ScoreStore,
    rng: Callable[[], np.random.Generator] = np.random.default_rng,
) -> dict[str, Strategy]:
    """Every strategy, under its name; they share one book of leases.

    Args:
        default: the strategy that ``random`` stands for: OHIF can ask for no other, so the server decides.
        lease_minutes: that an image is kept for the annotator who got it.
        scores: of the images.
        rng: a source of chance for one request.
    """
    leases = LeaseBook(lease_minutes)
    strategies: dict[str, Strategy] = {}
    for asked in SELECTORS:
        name = default if asked == RANDOM else asked
        description = _DESCRIPTIONS[name]
        if name != asked:
            description = f"{description} (--conf strategy {name})"
        strategies[asked] = NextImage(name, SELECTORS[name](), description, scores, leases, rng)
    return strategies
