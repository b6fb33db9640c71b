"""Requests of every kind of nonsense: no answer is a 500, and the server goes on."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.support.client import Client
from tests.support.datastore import CT
from tests.support.server import Server

# A request that takes longer than this, with nothing else to do, hangs.
HANG_S = 120
# Answers that say what the server lacks, and not that it failed: not implemented, busy, disk full.
EXPECTED = {501, 503, 507}
CLICK = {"foreground": [CT.click("lesion")], "background": [], "result_extension": ".nrrd"}
LABEL_INFO = {"label_info": [{"name": "lesion", "idx": 1}]}
SLIDE = {"level": 0, "location": [0, 0], "size": [64, 64], "params": {"foreground": [[10, 10]]}}

# Method, address, query, JSON body or form fields; a field "file" is sent as a file of the datastore.
Request = tuple[str, str, dict[str, Any], Any, dict[str, Any]]
GOOD: list[Request] = [
    ("POST", "/infer/biosam2_point", {"image": "ct"}, None, {"params": CLICK}),
    ("POST", "/infer/biosam2_box", {"image": "grey"}, None, {"params": {"roi": [5, 5, 30, 30]}}),
    (
        "POST",
        "/infer/biosam2_multi",
        {"image": "mr"},
        None,
        {"params": {"tumour": [[9, 9, 3]], "label": "a"}},
    ),
    ("POST", "/infer/biosam2_scribbles", {"image": "ct"}, None, {"params": CLICK, "label": "ct.nii.gz"}),
    ("POST", "/infer/sam_2d", {"output": "json"}, None, {"params": CLICK, "file": "ct.nii.gz"}),
    ("POST", "/infer/wsi/biosam2_pathology", {"image": "colour", "output": "asap"}, SLIDE, {}),
    (
        "POST",
        "/infer/wsi_v2/biosam2_pathology",
        {"output": "json"},
        None,
        {"wsi": SLIDE, "file": "colour.png"},
    ),
    ("POST", "/activelearning/random", {}, {"client_id": "me"}, {}),
    ("POST", "/scoring/nothing", {"run_sync": "false"}, {"max_images": 1}, {}),
    ("POST", "/train/nothing", {}, {"max_epochs": 1, "preset": "decoder"}, {}),
    ("POST", "/batch/infer/nothing", {"images": "all"}, {"label_tag": "x"}, {}),
    ("GET", "/train/", {"check_if_running": "true"}, None, {}),
    ("GET", "/scoring/", {"all": "true"}, None, {}),
    ("GET", "/batch/infer/", {}, None, {}),
    ("GET", "/info/", {}, None, {}),
    ("GET", "/datastore/", {"output": "all"}, None, {}),
    ("PUT", "/datastore/", {"image": "new"}, None, {"params": {"a": 1}, "file": "mr.nii.gz"}),
    ("PUT", "/datastore/image", {"image": "new"}, None, {"params": {"a": 1}, "file": "mr.nii.gz"}),
    ("GET", "/datastore/image", {"image": "tiny"}, None, {}),
    ("HEAD", "/datastore/image", {"image": "ct", "check_sum": "SHA256:00"}, None, {}),
    ("DELETE", "/datastore/image", {"id": "new"}, None, {}),
    ("GET", "/datastore/image/info", {"image": "ct"}, None, {}),
    ("PUT", "/datastore/image/info", {"image": "ct"}, None, {"info": {"note": "x"}}),
    (
        "PUT",
        "/datastore/label",
        {"image": "ct", "tag": "t"},
        None,
        {"params": LABEL_INFO, "label": "ct.nii.gz"},
    ),
    ("GET", "/datastore/label", {"label": "ct", "tag": "t"}, None, {}),
    ("GET", "/datastore/label/info", {"label": "ct", "tag": "t"}, None, {}),
    ("PUT", "/datastore/label/info", {"label": "ct", "tag": "t"}, None, {"info": {"note": "x"}}),
    ("DELETE", "/datastore/label", {"id": "ct", "tag": "t"}, None, {}),
    ("GET", "/datastore/dataset", {"limit_cases": "1"}, None, {}),
    ("PUT", "/session/", {"uncompress": "true", "expiry": "10"}, None, {"files": "mr.nii.gz"}),
    ("GET", "/session/00000000-0000-0000-0000-000000000000", {"image": "true"}, None, {}),
    ("GET", "/model/biosam2_point", {}, None, {}),
    ("GET", "/model/info/biosam2_point", {}, None, {}),
    ("PUT", "/model/biosam2_point", {}, None, {"file": "ct.nii.gz"}),
    ("GET", "/logs/", {"lines": "5", "html": "false"}, None, {}),
    ("GET", "/proxy/dicom/qido/studies", {"limit": "1"}, None, {}),
    ("GET", "/ohif/index.html", {}, None, {}),
    ("GET", "/metrics", {}, None, {}),
]
HOSTILE: list[Any] = [
    None, True, 0, -1, 1e308, -1e308, 2**63, 2**200, 0.5, "", " ", "\x00", "\ud83d", "a" * 300,
    "../../etc/passwd", "/etc/passwd", "%2e%2e", "NaN", float("nan"), float("inf"),
    [], {}, [[]], [None], [[[]]], {"": None},
    [0] * 1000, [[1, 2, 3]] * 300, [[float("nan")] * 3], "é" * 90, "image.nii.gz", "<script>", "ct\nfinal",
]  # fmt: skip


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class Mutator:
    """Makes bad requests of good ones, the same ones for the same seed."""

    def __init__(self, seed: int, server: Server) -> None:
        self._random = random.Random(seed)
        self._files = {path.name: path.read_bytes() for path in server.studies.iterdir() if path.is_file()}

    def next(self) -> dict[str, Any]:
        """Arguments for ``requests.request``, with an address below the server's."""
        method, path, query, body, form = self._random.choice(GOOD)
        sent: dict[str, Any] = {"method": method, "path": path, "params": dict(query)}
        if body is not None:
            sent["data"] = self._text(self._changed(body))
            sent["headers"] = {
                "Content-Type": self._random.choice(["application/json"] * 3 + ["text/plain", ""])
            }
        if form:
            sent["files"] = dict(self._part(name, value) for name, value in form.items())
        for change in self._random.sample(self._changes(), self._random.choice([0, 1, 1, 2])):
            change(sent)
        return sent

    def _changes(self) -> list[Callable[[dict[str, Any]], None]]:
        return [self._change_query, self._change_path, self._change_method, self._change_headers]

    def _change_query(self, sent: dict[str, Any]) -> None:
        name = self._random.choice([*sent["params"], "image", "session_id", "output", "x"])
        value = str(self._random.choice(HOSTILE)).encode(errors="surrogatepass")
        sent["params"][name] = value[:500]

    def _change_path(self, sent: dict[str, Any]) -> None:
        parts = sent["path"].split("/")
        place = self._random.randrange(1, len(parts))
        hostile = ("..", "%00", "%2e%2e", "a" * 300, "", "%ff", "0", "biosam2_auto", "random", "..;")
        parts[place] = self._random.choice(hostile)
        sent["path"] = "/".join(parts)

    def _change_method(self, sent: dict[str, Any]) -> None:
        sent["method"] = self._random.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])

    def _change_headers(self, sent: dict[str, Any]) -> None:
        headers = sent.setdefault("headers", {})
        headers[self._random.choice(["Accept", "Range", "Authorization", "Cookie", "X-Request-ID"])] = (
            self._random.choice(["", "bytes=5-1", "Bearer x.y.z", "Basic !!!", "a=b; c", "x" * 2000, "*/*"])
        )

    def _part(self, name: str, value: Any) -> tuple[str, Any]:
        if isinstance(value, str) and value in self._files:
            names = [value] * 6 + [
                "x",
                ".nii.gz",
                "a" * 200 + ".nrrd",
                "x.bin",
                "x.xml",
                "x.dcm",
                "x.zip",
                "..png",
            ]
            return name, (self._random.choice(names), self._damaged(self._files[value]))
        return name, (None, self._text(self._changed(value)))

    def _damaged(self, content: bytes) -> bytes:
        data, kind = bytearray(content), self._random.randrange(5)
        if kind == 0:
            return bytes(data[: self._random.randrange(len(data) + 1)])
        if kind == 1:
            return self._random.randbytes(self._random.randrange(2000))
        if kind == 2:
            for _ in range(self._random.randrange(1, 20)):
                data[self._random.randrange(min(len(data), 500))] = self._random.randrange(256)
        return bytes(data)

    def _changed(self, value: Any) -> Any:
        """A copy in which one value, somewhere inside, may be another."""
        if self._random.random() < 0.15:
            return self._random.choice([*HOSTILE, nested(400)])
        if isinstance(value, dict) and value:
            name = self._random.choice(list(value))
            changed = {**value, name: self._changed(value[name])}
            if self._random.random() < 0.2:
                del changed[name]
            if self._random.random() < 0.2:
                changed[self._random.choice(["image", "model", "device", "roi", "slice", "label", "é"])] = (
                    self._random.choice(HOSTILE)
                )
            return changed
        if isinstance(value, list) and value:
            place = self._random.randrange(len(value))
            return [*value[:place], self._changed(value[place]), *value[place + 1 :]]
        return self._random.choice(HOSTILE) if self._random.random() < 0.7 else value

    def _text(self, value: Any) -> bytes:
        text = json.dumps(value)
        if self._random.random() < 0.05:
            text = text[: self._random.randrange(len(text) + 1)]
        return text.encode()


class Sender:
    """Sends requests to one server, over one connection as long as the server keeps it open."""

    def __init__(self, server: Server) -> None:
        self._url = server.url
        self._session = requests.Session()

    def status(self, sent: dict[str, Any]) -> int:
        """Sends one request, whose address is taken as it is written."""
        try:
            return self._status(sent)
        except requests.ConnectionError:
            # The server closes a connection whose body it did not read, and one that was idle.
            return self._status(sent)

    def _status(self, sent: dict[str, Any]) -> int:
        asked = {name: value for name, value in sent.items() if name not in ("path", "method")}
        prepared = requests.Request(sent["method"], self._url, **asked).prepare()
        query = prepared.url.partition("?")[2] if prepared.url else ""
        prepared.url = f"{self._url}{sent['path']}" + (f"?{query}" if query else "")
        return self._session.send(prepared, timeout=HANG_S).status_code


@pytest.mark.timeout(1800)
def test_mutations_of_good_requests_are_answered_with_a_reason(
    server: Server, request: pytest.FixtureRequest
) -> None:
    mutator, sender = Mutator(request.config.getoption("seed"), server), Sender(server)
    statuses: Counter[int] = Counter()
    failures: list[str] = []
    for number in range(request.config.getoption("mutations")):
        sent = mutator.next()
        shown = f"{number}: {str(sent)[:1500]}"
        started = time.monotonic()
        try:
            status = sender.status(sent)
        except requests.RequestException as error:
            assert server.alive, f"the server has ended at {shown}\n{server.log[-4000:]}"
            failures.append(f"{shown}: {error}")
            continue
        statuses[status] += 1
        if (status >= 500 and status not in EXPECTED) or time.monotonic() - started > HANG_S:
            failures.append(f"{status} after {time.monotonic() - started:.1f} s: {shown}")
    sys.stdout.write(f"{sorted(statuses.items())}\n")
    assert failures == [], f"{len(failures)} failures, the first:\n" + "\n".join(failures[:20])
    check_still_works(server)


@pytest.mark.timeout(1800)
def test_schemathesis_finds_no_server_error(server: Server, request: pytest.FixtureRequest) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += ["--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--continue-on-failure"]
    command += ["--max-examples", str(request.config.getoption("examples"))]
    command += ["--seed", str(request.config.getoption("seed")), "--request-timeout", str(HANG_S)]
    # A training of valid options is no mistake, and takes the processor from everything else.
    command += ["--exclude-path-regex", "^/train/", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    failed = [line for line in done.stdout.splitlines() if "Server error" in line]
    assert server.alive, server.log[-4000:]
    assert failed == [], done.stdout[-12000:]
    assert "operations" in done.stdout.lower() or done.returncode == 0, (
        done.stdout[-4000:] + done.stderr[-4000:]
    )
    sys.stdout.write("\n".join(done.stdout.splitlines()[-15:]))
    check_still_works(server)


def check_still_works(server: Server) -> None:
    """A click is answered with a mask, on an image that no request has named and so deleted."""
    assert server.alive, server.log[-4000:]
    answer = Client(server.url).infer("biosam2_point", "ct_nrrd", {"foreground": [CT.click("lesion")]})
    assert answer.status == 200, answer.body[:500]
