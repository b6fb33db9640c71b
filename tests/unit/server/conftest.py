from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from lib.server.access import AccessMiddleware, Authenticator
from lib.server.error_responses import ErrorResponses


@pytest.fixture
def serve() -> Callable[[APIRouter], TestClient]:
    """A client of a server with some routes, on which access control is off."""

    def start(router: APIRouter) -> TestClient:
        server = FastAPI()
        server.include_router(router)
        ErrorResponses().add_to(server)
        server.add_middleware(AccessMiddleware, authenticator=Authenticator(None, None))
        return TestClient(server)

    return start
