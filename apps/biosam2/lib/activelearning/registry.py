"""All selectors by the names that clients and settings use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lib.activelearning.baselines import First, Last, Random
from lib.activelearning.candidate import Selector
from lib.activelearning.diversity import Diversity
from lib.activelearning.hybrid import Hybrid
from lib.activelearning.uncertainty import LeastConfident, Uncertainty

_ALL = (Random, First, Last, Diversity, Uncertainty, Hybrid, LeastConfident)
SELECTORS: Mapping[str, type[Selector]] = MappingProxyType({selector.name: selector for selector in _ALL})
