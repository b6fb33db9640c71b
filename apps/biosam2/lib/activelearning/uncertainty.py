"""Uncertainty sampling: the image that the model is least sure about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.activelearning.candidate import Candidate, Placed, Selector, with_unknown

UNSCORED = "not scored yet, placed at random"
UNLABELLED = "no pre-label yet, placed at random"


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


class LeastConfident(Selector):
    """Ascending order of the confidence of pre-labels (``biosam2_auto``)."""

    name = "least_confident"
    description = "The image whose pre-label the model is least confident about"

    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        """All candidates; only those without a pre-label are placed at random."""
        known = [(item.confidence, item) for item in candidates if item.confidence is not None]
        known.sort(key=lambda pair: pair[0])
        ordered = [
            (item, f"pre-label with confidence {value:.2f}, rank {place} of {len(known)}")
            for place, (value, item) in enumerate(known, 1)
        ]
        unknown = [item for item in candidates if item.confidence is None]
        return with_unknown(ordered, unknown, UNLABELLED, rng)
