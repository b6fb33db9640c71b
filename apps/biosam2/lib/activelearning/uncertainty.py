"""Uncertainty sampling: the image that the model is least sure about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.activelearning.candidate import Candidate, Placed, Selector, with_unknown

UNSCORED = "not scored yet, placed at random"


class Uncertainty(Selector):
    """Descending order of scores.

    Greedy: similar images have similar scores and follow each other.
    """

    name = "uncertainty"
    description = "The image that the model is least sure about"

    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        """All candidates; only those without a score are placed at random."""
        scored = [candidate for candidate in candidates if candidate.score is not None]
        unscored = [candidate for candidate in candidates if candidate.score is None]
        scored.sort(key=lambda candidate: -(candidate.score or 0.0))
        known = [
            (candidate, f"uncertainty {candidate.score:.2f}, rank {place} of {len(scored)}")
            for place, candidate in enumerate(scored, 1)
        ]
        return with_unknown(known, unscored, UNSCORED, rng)
