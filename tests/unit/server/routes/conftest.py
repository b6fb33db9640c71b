"""Fixtures of the packages behind the routes."""

from __future__ import annotations

from tests.unit.activelearning.conftest import datastore, label, scores
from tests.unit.datastores.conftest import pacs
from tests.unit.scoring.conftest import engines

__all__ = ["datastore", "engines", "label", "pacs", "scores"]
