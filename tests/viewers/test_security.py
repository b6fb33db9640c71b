"""A real browser: a page of another port changes and reads nothing, and OHIF opens after signing in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser

from lib.server.api_keys import add_key
from tests.support import studies
from tests.support.client import LIMIT_S
from tests.support.nginx import Nginx
from tests.support.server import Server, copy_model_folder

# Every way in which a page can send a request: with and without a preflight, with and without credentials.
ATTACK = """
async (server) => {
  const label = new FormData();
  label.append("label", new Blob(["x"]), "x.nii.gz");
  const requests = [
    ["GET", "/info/", {}],
    ["GET", "/datastore/?output=all", {credentials: "include"}],
    ["POST", "/train/", {}],
    ["POST", "/train/biosam2", {body: "{}"}],
    ["POST", "/activelearning/first", {mode: "no-cors", body: "{}"}],
    ["POST", "/batch/infer/biosam2_point", {headers: {"Content-Type": "application/json"}, body: "{}"}],
    ["POST", "/logout", {mode: "no-cors", credentials: "include"}],
    ["PUT", "/datastore/label?image=ct", {body: label, credentials: "include"}],
    ["DELETE", "/datastore/image?id=ct", {}],
  ];
  const read = [];
  for (const [method, path, options] of requests) {
    try {
      const answer = await fetch(server + path, {method, ...options});
      read.push(answer.type === "opaque" ? "opaque" : await answer.text());
    } catch (error) { read.push("refused"); }
  }
  return read;
}
"""
FORM = """
(server) => {
  const form = document.createElement("form");
  form.method = "post"; form.action = server + "/train/biosam2"; form.enctype = "text/plain";
  form.innerHTML = '<input name="{&quot;a" value="&quot;:1}">';
  document.body.append(form); form.submit();
}
"""


@pytest.fixture(scope="module")
def evil() -> Iterator[str]:
    """An empty page of another port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><body></body>")

        def log_message(self, *_: Any) -> None:
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{site.server_address[1]}"
    site.shutdown()
    site.server_close()


def _server(workdir: Path, conf: dict[str, str]) -> Server:
    (workdir / "outside").mkdir(parents=True)
    folder = studies.write_datastore(workdir / "studies", workdir / "outside")
    return Server(folder, workdir, {"model_dir": str(copy_model_folder(workdir / "model")), **conf}).start()


def test_a_page_of_another_port_changes_and_reads_nothing(
    browser: Browser, evil: str, tmp_path: Path
) -> None:
    server = _server(tmp_path, {})
    try:
        before = studies.tree_digest(server.studies)
        page = browser.new_context().new_page()
        page.goto(evil)
        read = page.evaluate(ATTACK, server.url)
        assert set(read) <= {"refused", "opaque"}, read
        page.evaluate(FORM, server.url)
        page.wait_for_url(f"{server.url}/train/biosam2")
        assert "may not use this server" in page.content()
        assert studies.tree_digest(server.studies) == before
        for path in ("/train/", "/batch/infer"):
            assert requests.get(server.url + path, timeout=LIMIT_S).status_code == 404, "nothing was started"
        # The server's own page may.
        page.goto(f"{server.url}/login")
        own = "async () => (await fetch('/activelearning/first', {method: 'POST', body: '{}'})).status"
        assert page.evaluate(own) == 200
    finally:
        server.stop()


def test_ohif_opens_after_signing_in(browser: Browser, evil: str, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "anna", "annotator")
    server = _server(tmp_path / "server", {"api_keys": str(tmp_path / "keys")})
    try:
        context = browser.new_context()
        page = context.new_page()
        failed: list[str] = []
        page.on("response", lambda answer: failed.append(answer.url) if answer.status == 401 else None)
        page.goto(f"{server.url}/ohif/")
        assert "/login?next=/ohif/" in page.url
        page.fill("input[name=password]", key)
        page.click("button")
        page.wait_for_url(f"{server.url}/ohif/**")
        page.wait_for_selector("#root *", state="attached")
        assert failed == []
        assert "biosam2" not in page.evaluate("document.cookie"), "scripts do not see the cookie"
        name = "async () => (await (await fetch('/auth/token/valid')).json()).username"
        assert page.evaluate(name) == "anna"
        # With the cookie in the browser, a page of another port is as powerless.
        other = context.new_page()
        other.goto(evil)
        assert set(other.evaluate(ATTACK, server.url)) <= {"refused", "opaque"}
        assert page.evaluate(name) == "anna", "it did not sign out either"
    finally:
        server.stop()


@pytest.mark.skipif(Nginx.find() is None, reason="nginx is not installed")
def test_ohif_opens_and_a_click_is_answered_through_nginx(browser: Browser, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "anna", "annotator")
    server = _server(tmp_path / "server", {"api_keys": str(tmp_path / "keys")})
    try:
        with Nginx(tmp_path / "nginx", {8000: server.port}) as nginx:
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.set_default_timeout(LIMIT_S * 1000)
            page.goto(f"{nginx.url}/ohif/")
            page.fill("input[name=password]", key)
            page.click("button")
            page.wait_for_url(f"{nginx.url}/ohif/**")
            page.wait_for_selector("#root *", state="attached")
            click = """async (point) => {
              const form = new FormData();
              form.append("params", JSON.stringify({foreground: [point]}));
              const answer = await fetch("/infer/biosam2_point?image=ct", {method: "POST", body: form});
              return [answer.status, (await answer.arrayBuffer()).byteLength];
            }"""
            status, size = page.evaluate(click, list(studies.phantom("ct").click("lesion")))
            assert (status, size > 1000) == (200, True)
    finally:
        server.stop()
