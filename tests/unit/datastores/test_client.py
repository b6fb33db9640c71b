"""A store as MONAI Label's settings say."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from monailabel.config import settings

from lib.datastores.client import open_session, open_store
from lib.errors import BusyError

FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"


@pytest.fixture
def configure(monkeypatch, tmp_path):
    """Function that sets settings as a user does; the cache lies in the test's folder."""
    monkeypatch.setattr(settings, "__pydantic_fields_set__", set())
    monkeypatch.setenv(FILTER, "as it was")
    monkeypatch.delenv(FILTER)
    monkeypatch.setattr(settings, FILTER, {"Modality": "CT"})
    settings.__pydantic_fields_set__.clear()

    def change(**values):
        for name, value in {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"), **values}.items():
            monkeypatch.setattr(settings, name, value)

    return change


@pytest.fixture
def opened(pacs):
    """Function that opens the store of the test."""
    return lambda: open_store(pacs.store.dicomweb_url, 1000)


def test_all_modalities_where_nobody_set_a_filter_also_in_processes_of_the_server(configure, opened, pacs):
    configure()
    assert set(opened().list_images()) == {pacs.ct.series_uid, pacs.mr.series_uid}
    # MONAI Label's processes read their settings from the environment.
    assert os.environ[FILTER] == "{}"


def test_the_filter_that_somebody_set(configure, opened, pacs):
    configure(**{FILTER: {"Modality": "MR"}})
    assert opened().list_images() == [pacs.mr.series_uid]
    assert FILTER not in os.environ


def test_wildcards_arrive_as_such(configure, opened, pacs):
    configure(**{FILTER: {"PatientID": "phan*"}})
    assert len(opened().list_images()) == 2
    assert any("PatientID=phan*&" in request for request in pacs.store.requests)


def test_downloads_go_where_the_settings_say(configure, opened, pacs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    configure()
    assert opened().get_image_uri(pacs.ct.series_uid).startswith(str(tmp_path / "cache"))
    assert not (tmp_path / "home").exists()
    configure(MONAI_LABEL_DICOMWEB_CACHE_PATH="", MONAI_LABEL_DATASTORE_CACHE_PATH=str(tmp_path / "other"))
    assert opened().get_image_uri(pacs.ct.series_uid).startswith(str(tmp_path / "other"))
    configure(MONAI_LABEL_DICOMWEB_CACHE_PATH="")
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_CACHE_PATH", "")
    home = tmp_path / "home" / ".cache" / "monailabel" / "dicom"
    assert opened().get_image_uri(pacs.ct.series_uid).startswith(str(home))


def test_a_store_that_is_down_is_found_out_at_once(configure, opened, pacs):
    configure()
    pacs.store.stop()
    start = time.monotonic()
    with pytest.raises(BusyError):
        opened().list_images()
    assert time.monotonic() - start < 5


def test_user_and_password(configure):
    configure(MONAI_LABEL_DICOMWEB_USERNAME="me", MONAI_LABEL_DICOMWEB_PASSWORD="secret")
    assert open_session("http://store/dicom-web").auth == ("me", "secret")


def test_no_request_waits_for_ever(configure, pacs, monkeypatch):
    configure()
    limits = []
    session = open_session(pacs.store.dicomweb_url)
    adapter = session.get_adapter(pacs.store.dicomweb_url)
    send = type(adapter).__mro__[1].send
    monkeypatch.setattr(
        type(adapter).__mro__[1],
        "send",
        lambda self, request, *args, **options: (
            limits.append(options["timeout"]) or send(self, request, *args, **options)
        ),
    )
    assert session.get(f"{pacs.store.dicomweb_url}/series").ok
    ((connect, silent),) = limits
    assert 0 < connect <= 10
    assert 0 < silent <= 600


class Listener:
    """An HTTP server that redirects to an address, or answers 200."""

    def __init__(self, target=""):
        listener = self
        self.credentials = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                listener.credentials.append(self.headers.get("Authorization"))
                moved = target and not self.path.endswith("/moved")
                self.send_response(302 if moved else 200)
                if moved:
                    self.send_header("Location", target)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_the_password_goes_to_the_store_alone(configure):
    configure(MONAI_LABEL_DICOMWEB_USERNAME="me", MONAI_LABEL_DICOMWEB_PASSWORD="secret")
    other = Listener()
    elsewhere, within = Listener(f"{other.url}/studies"), Listener("/dicom-web/moved")
    try:
        with pytest.raises(requests.RequestException, match="redirects to another host"):
            open_session(elsewhere.url).get(f"{elsewhere.url}/studies")
        with pytest.raises(BusyError, match="another host"):
            open_store(elsewhere.url, 10).list_images()
        assert open_session(within.url).get(f"{within.url}/studies").url.endswith("/dicom-web/moved")
    finally:
        for listener in (other, elsewhere, within):
            listener.server.shutdown()
            listener.server.server_close()
    assert other.credentials == []
    assert None not in elsewhere.credentials + within.credentials
