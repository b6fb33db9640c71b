"""Orders that ask nothing of the images: by chance, and by id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.activelearning.candidate import Candidate, Choice
from lib.activelearning.ordering import by_id, choices, shuffled


class Random:
    """All candidates in an order of chance: the control that every other strategy has to beat."""

    def rank(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Choice]:
        """All candidates; each order is as likely as any other."""
        why = f"drawn by chance from {len(candidates)}"
        return choices("random", [(one, why) for one in shuffled(by_id(candidates), rng)])


class First:
    """By id, from the first: what people expect who number their cases."""

    def rank(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Choice]:
        """All candidates by id; nothing is drawn."""
        why = f"by name, from the first of {len(candidates)}"
        return choices("first", [(one, why) for one in by_id(candidates)])


class Last:
    """By id, from the last."""

    def rank(
        self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Choice]:
        """All candidates by id, backwards; nothing is drawn."""
        why = f"by name, from the last of {len(candidates)}"
        return choices("last", [(one, why) for one in reversed(by_id(candidates))])
