"""Versions over HTTP: brought, served, and gone back from."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import pytest
from fastapi.testclient import TestClient

from lib.engine.model_versions import CONFIG_FILE, WEIGHTS_FILE
from lib.engine.predictor_pool import PredictorPool
from lib.server.training import routes


@pytest.fixture
def client(engines: PredictorPool, serve: Callable[..., TestClient]) -> TestClient:
    return serve(routes, engines=engines, trainers={})


def upload(client: TestClient, engines: PredictorPool) -> str:
    content = engines.registry.path("biosam2_mini").read_bytes()
    answer = client.put("/model/biosam2", files={"file": ("weights.pt", content)})
    assert answer.status_code == HTTPStatus.OK, answer.text
    return answer.json()["version"]


def train_from_base(engines: PredictorPool) -> str:
    """What a training with ``start_from: base`` publishes while another version is in service."""
    versions, first = engines.versions, engines.versions.read("v0001")
    with versions.new_folder() as folder:
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            (folder / name).write_bytes((versions.folder("v0001") / name).read_bytes())
        record = first.model_dump(exclude={"name"}) | {"parent": None, "before": versions.current()}
        name = versions.add(folder, record).name
    versions.switch(name)
    return name


def test_going_back_is_to_what_was_in_service_before(client: TestClient, engines: PredictorPool) -> None:
    assert upload(client, engines) == "v0001"
    assert train_from_base(engines) == "v0002"
    assert client.delete("/model/biosam2").json() == {"version": "v0001"}
    assert client.delete("/model/biosam2").json() == {"version": "biosam2_mini"}
    answer = client.delete("/model/biosam2")
    assert answer.status_code == HTTPStatus.CONFLICT
    assert "nothing to go back to" in answer.json()["detail"]


def test_after_going_back_what_is_brought_goes_back_to_the_same(
    client: TestClient, engines: PredictorPool
) -> None:
    for _ in range(2):
        upload(client, engines)
    client.delete("/model/biosam2")
    assert upload(client, engines) == "v0003"
    assert client.delete("/model/biosam2").json() == {"version": "v0001"}
