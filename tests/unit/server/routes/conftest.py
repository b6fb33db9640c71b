"""The datastore and the scores that the tests of active learning use."""

from __future__ import annotations

from tests.unit.activelearning.conftest import datastore, label, scores

__all__ = ["datastore", "label", "scores"]
