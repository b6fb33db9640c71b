from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from lib.server.error_responses import ErrorResponses
from lib.server.middleware import AccessMiddleware, Authenticator
from tests.unit.activelearning.conftest import datastore, label, scores
from tests.unit.datastores.conftest import pacs
from tests.unit.scoring.conftest import engines

__all__ = ["datastore", "engines", "label", "pacs", "scores"]


@pytest.fixture
def serve() -> Callable[..., TestClient]:
    """A client of a server with some routes and what they are made of; access control is off."""

    def start(router: APIRouter, **state: Any) -> TestClient:
        server = FastAPI()
        usual = {"authenticator": Authenticator(None, None), "on_opening": lambda user, image: None}
        state = {**usual, **state}
        for name, value in state.items():
            setattr(server.state, name, value)
        server.include_router(router)
        ErrorResponses().add_to(server)
        server.add_middleware(AccessMiddleware, authenticator=state["authenticator"])
        return TestClient(server)

    return start
