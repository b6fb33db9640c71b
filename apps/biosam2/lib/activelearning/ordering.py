"""How orders become choices, and where a candidate stands of which nothing is known yet.

An image without a score or an embedding is no better and no worse than the others, as far as anybody knows.
It therefore stands at a random place among them: of ``n`` candidates it is the next one with probability
``1 / n``, as if it had been drawn. So it is never starved by images that are known, and never pushes them
aside; and where nothing is known of any image, the order is that of chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from lib.activelearning.candidate import Candidate, Choice

T = TypeVar("T")
Placed = tuple[Candidate, str]


def by_id(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates by id: so their order says nothing, and ties go to the first id."""
    return sorted(candidates, key=lambda candidate: candidate.id)


def shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    """The items in an order of chance."""
    return [items[place] for place in rng.permutation(len(items))]


def with_unknown(
    known: Sequence[Placed], unknown: Sequence[Candidate], why: str, rng: np.random.Generator
) -> list[Placed]:
    """Puts candidates at random places of an order; every set of places is as likely as any other.

    Args:
        known: in their order, each with its reason.
        unknown: of which nothing is known.
        why: the reason of theirs.
        rng: draws the places, and who stands at which.
    """
    total = len(known) + len(unknown)
    drawn = set(rng.choice(total, len(unknown), replace=False).tolist())
    ordered, chance = iter(known), iter(shuffled(unknown, rng))
    return [(next(chance), why) if place in drawn else next(ordered) for place in range(total)]


def choices(strategy: str, order: Sequence[Placed]) -> list[Choice]:
    """The choices of an order, best first."""
    return [
        Choice(candidate.id, rank, candidate.score, strategy, why, candidate.slice_index)
        for rank, (candidate, why) in enumerate(order)
    ]
