"""Downloads, from a real HTTP server on this machine."""

import hashlib
import threading
import time
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest
import yaml

from lib.engine.download import fetch, main
from lib.engine.registry import Registry, record_path
from lib.errors import CheckpointError

CONTENT = bytes(range(256)) * 20_000


class RangeHandler(SimpleHTTPRequestHandler):
    """Python's file server, and the one thing it lacks: a range to the end of the file."""

    ranges: list[str] = []  # noqa: RUF012

    def do_GET(self):
        wanted = self.headers.get("Range")
        if wanted is None:
            return super().do_GET()
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(CONTENT):
            return self.send_error(416)
        self.send_response(206)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(tmp_path):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "weights.pt").write_bytes(CONTENT)
    RangeHandler.ranges.clear()
    server = HTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/weights.pt"
    server.shutdown()
    server.server_close()


def make_registry(folder, url, sha256=None, permissive=True) -> Registry:
    entry = {
        "file": "weights.pt", "url": url, "bytes": None, "sha256": sha256, "config": "x.yaml",
        "image_size": {"cpu": 256, "cuda": 256}, "licence": "Apache-2.0" if permissive else "research only",
        "permissive": permissive, "rendered_prompts": False, "meta_settings": False,
    }  # fmt: skip
    content = {"preference": {"cpu": ["w"], "cuda": ["w"]}, "weights": {"w": entry}}
    (folder / "registry.yaml").write_text(yaml.safe_dump(content))
    return Registry(folder)


def test_a_download_lands_in_the_model_folder_and_its_hash_is_recorded(tmp_path, address):
    path = fetch("w", make_registry(tmp_path, address))
    assert path.read_bytes() == CONTENT
    assert record_path(path).read_text().strip() == hashlib.sha256(CONTENT).hexdigest()
    assert not list(tmp_path.glob("*.part"))


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(tmp_path, address):
    (tmp_path / "weights.pt.part").write_bytes(CONTENT[:1_000_000])
    assert fetch("w", make_registry(tmp_path, address)).read_bytes() == CONTENT
    assert RangeHandler.ranges == ["bytes=1000000-"]


def test_a_part_that_is_whole_already_is_taken(tmp_path, address):
    (tmp_path / "weights.pt.part").write_bytes(CONTENT)
    assert fetch("w", make_registry(tmp_path, address)).read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing_behind(tmp_path, address):
    with pytest.raises(CheckpointError, match="it must be 00"):
        fetch("w", make_registry(tmp_path, address, sha256="00"))
    assert not list(tmp_path.glob("weights.pt*"))


def test_a_file_that_is_there_is_not_downloaded_again(tmp_path):
    registry = make_registry(tmp_path, "http://127.0.0.1:9/x", hashlib.sha256(CONTENT).hexdigest())
    registry.path("w").write_bytes(CONTENT)
    assert fetch("w", registry) == registry.path("w")


def test_without_a_network_it_fails_soon_and_says_what_to_do(tmp_path, capsys):
    make_registry(tmp_path, "http://127.0.0.1:9/weights.pt")
    started = time.monotonic()
    assert main(["w", "--model-dir", str(tmp_path)]) == 1
    assert time.monotonic() - started < 10
    said = capsys.readouterr().err
    assert "Check the network" in said
    assert str(tmp_path / "weights.pt") in said


def test_a_licence_that_is_not_permissive_wants_consent(tmp_path, address, capsys):
    make_registry(tmp_path, address, permissive=False)
    assert main(["w", "--model-dir", str(tmp_path)]) == 1
    assert "licence research only" in capsys.readouterr().out
    assert not (tmp_path / "weights.pt").exists()
    assert main(["w", "--accept-licence", "--model-dir", str(tmp_path)]) == 0
    assert (tmp_path / "weights.pt").is_file()


def test_an_unknown_name_is_refused(tmp_path, address, capsys):
    make_registry(tmp_path, address)
    assert main(["sam9", "--model-dir", str(tmp_path)]) == 1
    assert "Unknown model 'sam9'" in capsys.readouterr().err
