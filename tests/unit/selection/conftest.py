"""Candidates of few words."""

from __future__ import annotations

import numpy as np
import pytest

from lib.selection.candidate import Candidate


def one(
    name: str, score: float | None = None, at: tuple[float, ...] | None = None, labels: tuple[str, ...] = ()
) -> Candidate:
    """A candidate at a place; places need not be of length 1 here, so that distances are plain."""
    embedding = None if at is None else np.array(at, dtype=np.float32)
    return Candidate(name, score, embedding, labels)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
