import math
import os
import socket
import sys
from pathlib import Path

import pytest
import requests

from benchmarks import server
from benchmarks.server import (
    ServerError,
    last_lines,
    parse_peak_memory_mb,
    running_server,
    server_environment,
    start_command,
)

_SERVES = """
import http.server, sys
class Info(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Info).serve_forever()
"""


def _run_instead(monkeypatch, program):
    monkeypatch.setattr(
        server,
        "start_command",
        lambda app, studies, port, conf: [sys.executable, "-c", program, str(port)],
    )


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_peak_memory_is_read_from_proc():
    assert parse_peak_memory_mb("VmPeak:\t 9 kB\nVmHWM:\t 2000000 kB\nVmRSS:\t 1 kB\n") == 2048.0
    assert math.isnan(parse_peak_memory_mb("nothing"))


def test_command_names_app_studies_port_and_options():
    command = start_command(Path("app"), Path("data"), 8120, {"model": "x.pt", "image_size": "512"})
    text = " ".join(command[1:])
    assert command[0] == sys.executable
    assert "start_server --app app --studies data --host 127.0.0.1 --port 8120" in text
    assert text.endswith("--conf model x.pt --conf image_size 512")


def test_the_interpreters_folder_comes_first_and_caches_are_private(tmp_path):
    environment = server_environment(tmp_path, {"EXTRA": "1"})
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["MONAI_LABEL_DATASTORE_CACHE_PATH"] == str(tmp_path)
    assert environment["EXTRA"] == "1"


def test_a_server_answers_inside_and_is_gone_outside(monkeypatch, tmp_path, port):
    _run_instead(monkeypatch, _SERVES)
    with running_server(tmp_path, tmp_path, port) as running:
        assert requests.get(f"{running.url}/info/", timeout=5).status_code == 200
        assert math.isnan(running.peak_memory_mb()) or running.peak_memory_mb() > 1
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{running.url}/info/", timeout=5)


def test_a_server_is_stopped_when_the_benchmark_fails(monkeypatch, tmp_path, port):
    _run_instead(monkeypatch, _SERVES)
    with pytest.raises(KeyError), running_server(tmp_path, tmp_path, port) as running:
        raise KeyError
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{running.url}/info/", timeout=5)


def test_a_port_that_is_taken_is_refused(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"port {port} is taken"),
            running_server(tmp_path, tmp_path, port),
        ):
            pass


def test_a_server_that_ends_is_reported_with_its_last_words(monkeypatch, tmp_path, port):
    _run_instead(monkeypatch, "import sys; print('no such weights'); sys.exit(3)")
    with (
        pytest.raises(ServerError, match=r"peer ended with code 3:\nno such weights"),
        running_server(tmp_path, tmp_path, port, name="peer"),
    ):
        pass


def test_a_server_that_never_answers_is_given_up(monkeypatch, tmp_path, port):
    _run_instead(monkeypatch, "import time; time.sleep(60)")
    with (
        pytest.raises(ServerError, match="did not answer within 1 s"),
        running_server(tmp_path, tmp_path, port, start_seconds=1),
    ):
        pass


def test_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_text("a\nb\nc\n")
    assert last_lines(log, 2) == "b\nc"
