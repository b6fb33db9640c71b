"""Orders that use no image content: random and by id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.activelearning.candidate import Candidate, Placed, Selector, shuffled


class Random(Selector):
    """Uniformly random order: the baseline that every other strategy has to beat."""

    name = "random"
    description = "Any image, by chance"

    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        """All candidates; every order is equally likely."""
        why = f"drawn at random from {len(candidates)} images"
        return [(candidate, why) for candidate in shuffled(candidates, rng)]


class First(Selector):
    """Ascending order of ids, for numbered studies."""

    name = "first"
    description = "The first image by name"

    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        """All candidates; nothing is drawn."""
        return [(candidate, f"first by name of {len(candidates)} images") for candidate in candidates]


class Last(Selector):
    """Descending order of ids."""

    name = "last"
    description = "The last image by name"

    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        """All candidates; nothing is drawn."""
        why = f"last by name of {len(candidates)} images"
        return [(candidate, why) for candidate in reversed(candidates)]
