"""Candidates, the choices made among them, and the base class of all selectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Candidate:
    """One image of the datastore, labelled or not.

    Attributes:
        id: Image id.
        score: Model uncertainty, 0 (sure) to 1 (unsure); None if the image is not scored yet.
        embedding: ``(C,)`` float32, mean-pooled and L2-normalised; None if the image is not scored yet.
        labels: Classes drawn by a person or, without a label, found by the model.
        slice_index: Suggested slice to open; None if all slices are equal.
        confidence: Confidence of the label that ``biosam2_auto`` has saved, 0 to 1; None without one.
    """

    id: str
    score: float | None = None
    embedding: NDArray[np.float32] | None = None
    labels: tuple[str, ...] = ()
    slice_index: int | None = None
    confidence: float | None = None


# A candidate and the reason for its place in an order.
Placed = tuple[Candidate, str]


@dataclass(frozen=True)
class Choice:
    """One place in an order of candidates.

    Attributes:
        id: Image id.
        rank: Place in the order, 0 for the image to label next.
        score: Score of the candidate, None if it has none.
        strategy: Name of the selector.
        why: Reason for this place, as text for annotators.
        slice_index: Suggested slice to open, or None.
    """

    id: str
    rank: int
    score: float | None
    strategy: str
    why: str
    slice_index: int | None


class Selector(ABC):
    """Orders candidates for labelling.

    Attributes:
        name: Name of the strategy in requests and settings.
        description: One line for viewers.
    """

    name: ClassVar[str]
    description: ClassVar[str]

    def rank(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Choice]:
        """Ranks all candidates, best first. Their order in the argument has no influence.

        Args:
            candidates: Images without a final label that nobody works on.
            labelled: Images with a final label, and images that somebody works on.
            rng: Only source of randomness: equal states and candidates give equal orders.
        """
        by_id = sorted(candidates, key=lambda candidate: candidate.id)
        return [
            Choice(candidate.id, rank, candidate.score, self.name, why, candidate.slice_index)
            for rank, (candidate, why) in enumerate(self.order(by_id, labelled, rng))
        ]

    @abstractmethod
    def order(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Placed]:
        """All candidates with the reason for their place, best first; arguments of ``rank``, sorted by id."""


def shuffled(candidates: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
    """The candidates in random order."""
    return [candidates[place] for place in rng.permutation(len(candidates))]


def with_unknown(
    known: Sequence[Placed], unknown: Sequence[Candidate], why: str, rng: np.random.Generator
) -> list[Placed]:
    """Inserts candidates without a score or embedding at random places of an order.

    Of ``n`` candidates an unknown one comes first with probability ``1 / n``, as if drawn at random: known
    images neither starve it nor are displaced by it. If nothing is known, the whole order is random.

    Args:
        known: Ordered candidates with their reasons.
        unknown: Candidates to insert.
        why: Reason stated for the inserted candidates.
        rng: Draws the places and the order of the unknown candidates.
    """
    total = len(known) + len(unknown)
    drawn = set(rng.choice(total, len(unknown), replace=False).tolist())
    ordered, random = iter(known), iter(shuffled(unknown, rng))
    return [(next(random), why) if place in drawn else next(ordered) for place in range(total)]
