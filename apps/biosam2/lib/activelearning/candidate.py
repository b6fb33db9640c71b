"""What a selector is given, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Candidate:
    """One image that a person could label next, or has labelled.

    Attributes:
        id: the image's id.
        score: how unsure the model is about it, from 0 (sure) to 1 (unsure); None: not scored yet.
        embedding: ``(C,)`` float32, mean-pooled and L2-normalised; None: not scored yet.
        labels: classes that the model found in it, for the spread over labels; empty: none known.
        slice_index: the slice to open it at; None: no slice is worth more than another.
    """

    id: str
    score: float | None = None
    embedding: NDArray[np.float32] | None = None
    labels: tuple[str, ...] = ()
    slice_index: int | None = None


@dataclass(frozen=True)
class Choice:
    """One place in an order of candidates.

    Attributes:
        id: the image's id.
        rank: its place, from 0, the next one to label.
        score: the candidate's own score, None where it has none.
        strategy: the name of the selector that put it there.
        why: the reason, for a person to read.
        slice_index: the slice to open it at, or None.
    """

    id: str
    rank: int
    score: float | None
    strategy: str
    why: str
    slice_index: int | None


class Selector(Protocol):
    """Orders candidates."""

    def rank(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Choice]:
        """All candidates, the best first.

        Args:
            candidates: images without a label that nobody works on.
            labelled: images that have a label, or that somebody works on now.
            rng: the only source of chance: the same state and candidates give the same order.
        """
        ...
