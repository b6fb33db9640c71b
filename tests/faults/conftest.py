"""Options of the fault tests: ``python -m pytest tests/faults --kills 5 --mutations 200 --examples 2``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.launcher import KillableServer, Launcher
from tests.support import studies
from tests.support.server import copy_model_folder

# Small numbers keep each request short.
CONF = {"labels": "lesion,organ", "max_voxels": str(studies.MAX_VOXELS), "keep_versions": "0"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Bounds of the run."""
    parser.addoption("--kills", type=int, default=100, help="servers that are killed")
    parser.addoption("--mutations", type=int, default=10_000, help="requests made from good ones")
    parser.addoption("--examples", type=int, default=20, help="schemathesis: most examples for each route")
    parser.addoption("--seed", type=int, default=7, help="seed of all that is random")


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """Process that forks servers."""
    launcher = Launcher()
    yield launcher
    launcher.stop()


@pytest.fixture
def server(launcher: Launcher, tmp_path: Path) -> Iterator[KillableServer]:
    """A server on phantoms, which is killed at the end."""
    studies.write_datastore(tmp_path / "studies", tmp_path)
    copy_model_folder(tmp_path / "model")
    server = KillableServer(launcher, tmp_path, CONF)
    server.start()
    yield server
    if server.alive:
        server.kill()
