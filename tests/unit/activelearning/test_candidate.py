from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from lib.activelearning.candidate import Candidate


def test_candidates_are_told_apart_by_identity_so_that_embeddings_need_no_comparison() -> None:
    embedding = np.ones(3, dtype=np.float32)
    first, second = Candidate("a", 0.5, embedding), Candidate("a", 0.5, embedding)
    assert first != second
    assert len({first, second}) == 2


def test_nobody_changes_a_candidate() -> None:
    with pytest.raises(FrozenInstanceError):
        Candidate("a").score = 1.0  # type: ignore[misc]
