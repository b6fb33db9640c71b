"""The strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from lib.selection.candidate import Selector
from lib.selection.diversity import Diversity
from lib.selection.hybrid import Hybrid
from lib.selection.plain import First, Last, Random
from lib.selection.uncertainty import Uncertainty

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
