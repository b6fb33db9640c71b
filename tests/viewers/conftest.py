"""One store, one server on it and one browser for all tests of this folder; a page for each test.

``make test`` leaves this folder out; ``make test-viewers`` runs it. A picture of every test, also of one that
failed, stays in ``outputs/viewers``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from sample_study.orthanc import Orthanc
from tests.support.server import REPOSITORY, Server
from tests.viewers.cases import Case, write_cases
from tests.viewers.ohif import Ohif
from tests.viewers.packages import find_chromium
from tests.viewers.serving import serving

PICTURES = REPOSITORY / "outputs" / "viewers"
LIMIT_S = 1800
WINDOW = {"width": 1500, "height": 780}
# Its sandbox needs rights that containers seldom give; it opens our own pages alone, and finds no others.
ARGUMENTS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and gives them the time that a busy machine takes."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.viewers)
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """The series, as files."""
    return write_cases(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory, cases: dict[str, Case]) -> Iterator[Orthanc]:
    """An Orthanc that holds them."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        orthanc.store(*(case.series.files[0].parent for case in cases.values()))
        yield orthanc


@pytest.fixture(scope="session")
def server(pacs: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server on that Orthanc."""
    with serving(pacs, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window; WebGL runs in software."""
    chromium = find_chromium()
    assert chromium, "no Chromium is installed: `make test-viewers` says how"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(chromium), args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def new_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Ohif]]:
    """Makes a page for the server at an address."""
    pages: list[Ohif] = []

    def make(address: str) -> Ohif:
        page = browser.new_context(viewport=WINDOW).new_page()
        pages.append(Ohif(page, address, PICTURES))
        return pages[-1]

    yield make
    for page in pages:
        page.screenshot(re.sub(r"\W+", "_", request.node.name).strip("_"))
        page.page.context.close()


@pytest.fixture
def ohif(new_page: Callable[[str], Ohif], server: Server) -> Ohif:
    """A page for the shared server, which is still running."""
    assert server.alive, f"the server has ended:\n{server.log[-4000:]}"
    return new_page(server.url)
