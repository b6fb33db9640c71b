"""A store for the tests: the stand-in always, and the real Orthanc where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sample_study.orthanc import INSTALL, Orthanc, find_orthanc
from tests.support.dicomweb_standin import DicomWebStandIn

KINDS = [
    "stand-in",
    pytest.param("orthanc", marks=pytest.mark.skipif(find_orthanc() is None, reason=INSTALL)),
]


def open_pacs(kind: str, folder: Path) -> DicomWebStandIn | Orthanc:
    """Starts a store of that kind, whose files lie in ``folder``; the caller stops it."""
    store = DicomWebStandIn() if kind == "stand-in" else Orthanc(folder)
    return store.start()
