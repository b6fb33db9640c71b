"""One real server for all tests of this folder, on a datastore of phantoms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import requests

from tests.support import studies
from tests.support.client import Client
from tests.support.server import START_LIMIT_S, Server, copy_model_folder
from tests.support.slides import Cell, write_study

Server.forks_workers = True
# Small numbers keep the suite short: the labels that viewers offer, and the voxel limit of the bad requests.
CONF = {
    "labels": "lesion,organ",
    "max_voxels": str(studies.MAX_VOXELS),
    "allowed_origins": "http://viewer.example",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, so that ``-m "not server"`` leaves them out."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the server's machine that is no part of the datastore."""
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(scope="session")
def start_server(
    tmp_path_factory: pytest.TempPathFactory, outside: Path
) -> Iterator[Callable[[Mapping[str, str]], Server]]:
    """Starts a server with the given ``--conf`` on a datastore of its own; all are stopped at the end."""
    servers: list[Server] = []

    def start(conf: Mapping[str, str]) -> Server:
        workdir = tmp_path_factory.mktemp("server")
        folder = studies.write_datastore(workdir / "studies", outside)
        # Whatever was fine-tuned on this machine is no matter of the tests.
        model_dir = {} if "model_dir" in conf else {"model_dir": str(copy_model_folder(workdir / "model"))}
        server = Server(folder, workdir, {**model_dir, **conf})
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(start_server: Callable[[Mapping[str, str]], Server]) -> Server:
    """The server that the tests share."""
    return start_server(CONF)


@pytest.fixture
def client(server: Server) -> Client:
    """A client of the shared server, which is still running afterwards."""
    assert server.alive, f"the server has ended:\n{server.log[-4000:]}"
    return Client(server.url)


@pytest.fixture(scope="session")
def scratch(start_server: Callable[[Mapping[str, str]], Server]) -> Server:
    """A server on a datastore of its own, whose images and labels tests may change."""
    return start_server(CONF)


@pytest.fixture(scope="session")
def slides(scratch: Server) -> dict[str, list[Cell]]:
    """Slides in the datastore of ``scratch``, where the server has found them: their cells by id."""
    cells = write_study(scratch.studies)
    give_up = time.monotonic() + START_LIMIT_S
    listing = f"{scratch.url}/datastore/?output=all"
    while not {*cells, "no_slide"} <= set(requests.get(listing, timeout=60).json()["objects"]):
        assert time.monotonic() < give_up, "the server does not see the slides"
        time.sleep(0.2)
    return cells
