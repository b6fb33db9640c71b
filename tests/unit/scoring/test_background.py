from __future__ import annotations

import http.server
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lib.engine.model_versions import Versions
from lib.scoring import background
from lib.scoring.background import AutomaticScoring, ask_server, state_of
from lib.scoring.registry import ALL
from tests.unit.scoring.conftest import save_label


def test_the_process_of_a_scoring_is_told_from_the_server(monkeypatch):
    assert not background.is_worker_process()
    spec = SimpleNamespace(name="monailabel.interfaces.utils.app")
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    assert background.is_worker_process()
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    assert not background.is_worker_process()


@pytest.fixture
def queue(monkeypatch) -> list[dict]:
    """MONAI Label's queue, without its processes."""
    waiting: list[dict] = []

    def run(method, request, params, enqueue):
        if not enqueue and any(task["status"] == "RUNNING" for task in waiting):
            return None, "runs already"
        task = {"id": str(len(waiting)), "status": "SUBMITTED", "request": {**request, **params}}
        waiting.append(task)
        return task, None

    monkeypatch.setattr(background.AsyncTask, "run", run)
    monkeypatch.setattr(background, "tasks", lambda name: waiting)
    return waiting


def test_a_scoring_is_started_under_its_own_name(queue):
    task = background.start("dice", {"again": True, "method": "other"})
    assert task["request"] == {"method": "dice", "again": True}
    task["status"] = "RUNNING"
    assert background.start("dice", {}) is None
    assert background.start("dice", {}, enqueue=True) is not None


def test_by_itself_it_scores_what_has_changed_and_one_scoring_waits_at_most(queue):
    state = ["a"]
    automatic = AutomaticScoring(lambda: state[0])
    first = automatic.start()
    assert first["request"]["method"] == ALL
    state[0] = "b"
    assert automatic.start() is None  # the one that waits will see it
    first["status"] = "RUNNING"
    second = automatic.start()
    assert second is not None
    second["status"] = "DONE"
    assert automatic.start() is None  # nothing has changed
    state[0] = "c"
    assert automatic.start() is not None
    assert len(queue) == 3


def test_a_change_that_the_waiting_one_will_see_is_not_scored_twice(queue):
    state = ["a"]
    automatic = AutomaticScoring(lambda: state[0])
    task = automatic.start()
    state[0] = "b"
    automatic.start()
    task["status"] = "DONE"
    # It had read the state before "b": that is still to be scored, once.
    assert automatic.start() is not None
    queue[-1]["status"] = "DONE"
    assert automatic.start() is None


def test_images_labels_and_weights_are_the_state(datastore, tmp_path, engines, studies):
    versions = Versions(engines.registry.folder)
    seen = [state_of(datastore, versions)]
    assert state_of(datastore, versions) == seen[0]
    datastore.update_image_info("case0", {"biosam2_uncertainty": {"score": 0.5}})
    assert state_of(datastore, versions) == seen[0]
    save_label(datastore, tmp_path, 0)
    seen.append(state_of(datastore, versions))
    (studies / "case2.nii.gz").unlink()
    datastore.refresh()
    seen.append(state_of(datastore, versions))
    (engines.registry.folder / "current").write_text("v0001\n")
    seen.append(state_of(datastore, versions))
    assert len(set(seen)) == 4


class _Answer(http.server.BaseHTTPRequestHandler):
    """Says what it was asked; 401 for /closed."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        content = json.dumps({"path": self.path, "params": json.loads(body)}).encode()
        self.send_response(401 if self.path == "/closed" else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def _write_certificate(folder: Path) -> None:
    """A key and a certificate that it signed itself, for another name than this machine's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere")])
    day, now = timedelta(days=1), datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    certificate = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(params=["http", "https"])
def port(request, tmp_path) -> Iterator[int]:
    """A server on this machine; its certificate is its own and for another name."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    if request.param == "https":
        _write_certificate(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *arguments: None  # of plain HTTP
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_server_is_asked_with_and_without_tls(port):
    assert ask_server("/scoring/", {"again": True}, port) == {"path": "/scoring/", "params": {"again": True}}
    assert ask_server("/scoring/", None, port)["params"] == {}


def test_a_refusal_is_no_error(port, caplog):
    assert ask_server("/closed", None, port) is None
    assert "did not accept POST /closed" in caplog.text


def test_a_server_that_does_not_answer_is_no_error(caplog):
    assert ask_server("/scoring/", None, 1) is None
    assert "did not accept POST /scoring/" in caplog.text
