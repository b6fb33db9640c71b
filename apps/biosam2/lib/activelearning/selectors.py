"""The strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from lib.activelearning.baselines import First, Last, Random
from lib.activelearning.candidate import Selector
from lib.activelearning.diversity import Diversity
from lib.activelearning.hybrid import Hybrid
from lib.activelearning.uncertainty import Uncertainty

SELECTORS: Mapping[str, Callable[[], Selector]] = MappingProxyType(
    {
        "random": Random,
        "first": First,
        "last": Last,
        "diversity": Diversity,
        "uncertainty": Uncertainty,
        "hybrid": Hybrid,
    }
)
