import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from benchmarks.server import ServerError
from demo.__main__ import server, show
from demo.session import work_through


@contextmanager
def answering(info, images=()):
    """A web server whose /info/ is ``info`` and that has ``images``; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(info.encode())

        def do_HEAD(self):
            self.send_response(200 if self.path.split("image=")[1] in images else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield web.server_port
        web.shutdown()


def test_a_server_that_answers_is_used(tmp_path):
    info = json.dumps({"models": {"biosam2_point": {}}})
    with (
        answering(info, images=("abdomen_ct", "head_mr", "cells")) as port,
        server("127.0.0.1", port, tmp_path) as url,
    ):
        assert url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("info", ["<html>", "[]", "{}"])
def test_a_server_of_another_kind_is_named_with_a_way_out(info, tmp_path):
    with (
        answering(info) as port,
        pytest.raises(ServerError, match=r"is not a MONAI Label server.*PORT="),
        server("127.0.0.1", port, tmp_path),
    ):
        pass


@pytest.mark.parametrize("models", [{"deepgrow_2d": {}}, {"biosam2_point": {}}])
def test_a_server_without_the_app_or_the_study_is_not_judged(models, tmp_path):
    with (
        answering(json.dumps({"models": models}), images=("abdomen_ct",)) as port,
        pytest.raises(ServerError, match="does not serve this app with the sample study"),
        server("127.0.0.1", port, tmp_path),
    ):
        pass


@pytest.mark.parametrize(("right", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_and_the_picture_tell_how_it_went(right, code, volume, viewer_of, tmp_path, capsys):
    mask = volume.truth if right else volume.truth & False
    path = tmp_path / "new" / "demo.png"
    assert show([work_through(viewer_of([mask]), volume)], path) == code
    assert path.exists()
    printed = capsys.readouterr().out
    assert "weights: fake" in printed
    assert ("NOT GOOD ENOUGH" in printed) is not right
