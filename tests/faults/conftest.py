"""Options of the fault tests: ``python -m pytest tests/faults --kills 5 --mutations 200 --examples 2``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import studies
from tests.support.server import Server, copy_model_folder

# Small numbers keep each request short.
CONF = {"labels": "lesion,organ", "max_voxels": str(studies.MAX_VOXELS), "keep_versions": "0"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Bounds of the run."""
    parser.addoption("--kills", type=int, default=100, help="servers that are killed")
    parser.addoption("--mutations", type=int, default=10_000, help="requests made from good ones")
    parser.addoption("--examples", type=int, default=20, help="schemathesis: most examples for each route")
    parser.addoption("--seed", type=int, default=7, help="seed of all that is random")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server on phantoms, which is killed at the end."""
    studies.write_datastore(tmp_path / "studies", tmp_path)
    conf = {**CONF, "model_dir": str(copy_model_folder(tmp_path / "model")), "threads": "1"}
    server = Server(tmp_path / "studies", tmp_path, conf).start()
    yield server
    server.stop()
