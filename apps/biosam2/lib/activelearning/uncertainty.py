"""Uncertainty: the image that the model is least sure about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.activelearning.candidate import Candidate, Choice
from lib.activelearning.ordering import by_id, choices, with_unknown

UNSCORED = "not scored yet, so at a random place"


class Uncertainty:
    """By score, the least sure first.

    It is greedy: images that are alike have like scores, and come one after the other.
    """

    def rank(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Choice]:
        """All candidates; chance only places those without a score."""
        scored = [one for one in by_id(candidates) if one.score is not None]
        unscored = [one for one in by_id(candidates) if one.score is None]
        scored.sort(key=lambda one: -(one.score or 0.0))
        count = len(scored)
        known = [
            (one, f"uncertainty {one.score:.2f}, place {place} of {count} by it")
            for place, one in enumerate(scored, 1)
        ]
        return choices("uncertainty", with_unknown(known, unscored, UNSCORED, rng))
