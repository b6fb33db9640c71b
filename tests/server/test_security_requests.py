"""Requests of an attacker to a server with default settings: code, files, other sites, broken JSON."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.support import studies
from tests.support.client import LIMIT_S, Client
from tests.support.phantoms import FROM_CLICK, dice
from tests.support.server import Server
from tests.support.studies import write_nifti

CT = studies.phantom("ct")
LESION = CT.click("lesion")
CLICK = {"foreground": [LESION], "slice": LESION[2]}
HALF = '"\\ud83d"'
DEEP = "[" * 400 + "]" * 400
EVIL = "http://evil.example"


class Attacker:
    """Sends requests to one server."""

    def __init__(self, server: Server):
        self.server = server
        self.url = server.url

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=LIMIT_S, **options)

    def refused(self, method: str, path: str, status: int | None = None, **options: Any) -> str:
        """The reason of a refusal, which shows no path of the server."""
        answer = self.send(method, path, **options)
        case = f"{method} {path[:80]}: {answer.status_code} {answer.text[:200]}"
        assert 400 <= answer.status_code < 500, case
        assert status is None or answer.status_code == status, case
        reason = str(answer.json()["detail"])
        assert len(reason) >= 20, case
        assert str(self.server.workdir) not in answer.text, case
        return reason


@pytest.fixture
def attacker(scratch: Server) -> Attacker:
    assert scratch.alive, scratch.log[-4000:]
    return Attacker(scratch)


def session(attacker: Attacker, *files: tuple[str, bytes], query: str = "") -> requests.Response:
    return attacker.send("PUT", f"/session/?{query}", files=[("files", file) for file in files])


def nifti(folder: Path) -> bytes:
    return write_nifti(folder / "v.nii.gz", CT.image, CT.affine).read_bytes()


def tar(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sessions(attacker: Attacker) -> set[Path]:
    return set((attacker.server.workdir / "sessions").rglob("*"))


def test_nothing_of_a_client_reaches_the_environment_of_a_process(attacker: Attacker, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    made = session(attacker, ("sitecustomize.py", f"open({str(mark)!r}, 'w')".encode())).json()
    info = json.dumps(made["session_info"])
    assert str(attacker.server.workdir) not in info
    assert made["session_info"]["path"] == ""
    # Where it lies is no secret of the tests.
    folder = str(attacker.server.workdir / "sessions" / made["session_id"] / "files")
    for body in (
        {"bundle_path": folder},
        {"gpus": "0,1"},
        {"biosam2": {"bundle_path": folder}},
        {"other": {}},
    ):
        for path in ("/train/", "/train/biosam2", "/batch/infer/biosam2_point"):
            if path != "/train/biosam2" and body == {"gpus": "0,1"}:
                attacker.refused("POST", path, json=body)
        attacker.refused("POST", "/train/", json=body)
    for path in ("/train/biosam2", "/batch/infer/biosam2_point", "/scoring/", "/scoring/dice"):
        assert "bundle_path" in attacker.refused("POST", path, 400, json={"bundle_path": folder})
    assert "gpus" in attacker.refused("POST", "/train/biosam2", 400, json={"gpus": "0"})
    for value in ([], {}, [1], "no", 3):
        attacker.refused("POST", "/train/biosam2", json={"model": value})
    for path in ("/train/", "/batch/infer", "/scoring/"):
        assert attacker.send("GET", path).status_code in (404, 200)
        assert folder not in attacker.send("GET", f"{path}?all=true").text
    assert not mark.exists()
    attacker.send("DELETE", f"/session/{made['session_id']}")


def test_an_archive_writes_nowhere_else_and_a_refused_one_leaves_nothing(
    attacker: Attacker, tmp_path: Path
) -> None:
    target, before = tmp_path / "slipped.txt", sessions(attacker)
    root = "/".join([".."] * 20)
    bad = {
        "a.tar": tar((str(target), b"x")),
        "b.tar.gz": tar((f"{root}{target}", b"x"), ("x.nii.gz", b"x")),
        "c.zip": b"PK\x03\x04 no zip",
        "d.txt": b"no archive at all",
        "e.tar": b"",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{root}{target}", "x")
    bad["f.zip"] = buffer.getvalue()
    for name, content in bad.items():
        reason = attacker.refused("PUT", "/session/?uncompress=true", 422, files={"files": (name, content)})
        assert "archive" in reason, name
    for name in ("", "a\0b.nii", "..", "x" * 300 + ".nii"):
        attacker.refused("PUT", "/session/", files={"files": (name or "/", b"x")})
    attacker.refused("PUT", "/session/", 422)
    attacker.refused("PUT", "/session/?uncompress=true", 422, files=[("files", ("a", b"x"))] * 2)
    assert not target.exists()
    assert sessions(attacker) == before


def test_a_session_is_what_the_server_made_of_it(attacker: Attacker, tmp_path: Path) -> None:
    secret = write_nifti(tmp_path / "secret.nii.gz", CT.image, CT.affine)
    record = json.dumps({"name": "x", "path": "x", "image": str(secret), "expiry": 3600}).encode()
    made = session(attacker, ("meta.info", record), ("session.json", record)).json()
    name = made["session_id"]
    assert str(uuid.UUID(name)) == name
    packed = attacker.send("GET", f"/session/{name}?image=true")
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert sorted(archive.namelist()) == ["meta.info", "session.json"]
    for wrong in (
        f"{name}/meta.info",
        "evil",
        "..",
        "../../..",
        "%2e%2e",
        name.upper(),
        f"{name}\0",
        "{" + name + "}",
    ):
        attacker.refused("POST", "/infer/biosam2_point", 404, params={"session_id": wrong})
        # The client itself would shorten the others.
        if not wrong.startswith((".", "%")):
            address = f"/session/{requests.utils.quote(wrong, safe='')}"
            assert attacker.send("GET", address).status_code == 404
            assert attacker.send("DELETE", address).status_code == 404
    assert secret.exists()
    assert attacker.send("DELETE", f"/session/{name}").status_code == 200
    assert attacker.send("GET", f"/session/{name}").status_code == 404


def test_a_session_of_an_archive_or_of_several_files_is_segmented(attacker: Attacker, tmp_path: Path) -> None:
    volume = nifti(tmp_path)
    for made in (
        session(attacker, ("v.nii.gz", volume)),
        session(attacker, ("v.tar.gz", tar(("inner/v.nii.gz", volume))), query="uncompress=true"),
    ):
        name = made.json()["session_id"]
        answer = Client(attacker.url).segment(
            "biosam2_point", "", {**CLICK, "result_extension": ".nrrd"}, query={"session_id": name}
        )
        mask = answer.mask[:, :, LESION[2]]
        assert dice(mask, CT.objects["lesion"][:, :, LESION[2]]) > FROM_CLICK
        assert attacker.send("GET", f"/session/{name}?image=true").content == volume
        attacker.send("DELETE", f"/session/{name}")


def _changes(attacker: Attacker) -> dict[str, Callable[..., requests.Response]]:
    return {
        "a segmentation": lambda **o: attacker.send("POST", "/infer/biosam2_point?image=ct", **o),
        "a training": lambda **o: attacker.send("POST", "/train/nothing", **o),
        "the next image": lambda **o: attacker.send("POST", "/activelearning/nothing", **o),
        "a deletion": lambda **o: attacker.send("DELETE", "/datastore/image?id=nothing", **o),
        "a session": lambda **o: attacker.send("PUT", "/session/", **o),
    }


def test_pages_of_other_sites_change_nothing_and_read_nothing(attacker: Attacker) -> None:
    port = attacker.server.port
    foreign = (EVIL, "null", "https://127.0.0.1.evil.example", f"http://127.0.0.1:{port + 1}", "file://", "x")
    for what, change in _changes(attacker).items():
        for origin in foreign:
            answer = change(headers={"Origin": origin})
            assert (answer.status_code, "allowed_origins" in answer.text) == (403, True), (what, origin)
            assert "access-control-allow-origin" not in answer.headers
        assert change(headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        for own in (
            {},
            {"Origin": attacker.url},
            {"Origin": attacker.url.upper()},
            {"Origin": "http://viewer.example"},
        ):
            assert change(headers=own).status_code != 403, (what, own)
    for origin in foreign:
        assert (
            "access-control-allow-origin"
            not in attacker.send("GET", "/info/", headers={"Origin": origin}).headers
        )
        headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
        assert attacker.send("OPTIONS", "/datastore/label", headers=headers).status_code == 403
    headers = {"Origin": "http://viewer.example", "Access-Control-Request-Method": "PUT"}
    allowed = attacker.send("OPTIONS", "/datastore/label", headers=headers)
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == "http://viewer.example"
    assert "PUT" in allowed.headers["access-control-allow-methods"]


def test_a_rebound_name_is_no_name_of_the_server(attacker: Attacker) -> None:
    for host in (
        "evil.example",
        f"evil.example:{attacker.server.port}",
        "127.0.0.1.evil.example",
        "[",
        "a b",
    ):
        answer = attacker.send("GET", "/info/", headers={"Host": host})
        assert answer.status_code in (400, 403), host
    names = ("127.0.0.1", "localhost", "LOCALHOST.", "192.168.1.7:8000", "[::1]:8000", socket.gethostname())
    for host in names:
        assert attacker.send("GET", "/info/", headers={"Host": host}).status_code == 200, host


def test_json_that_cannot_be_sent_back_is_refused_and_the_record_stays(
    attacker: Attacker, tmp_path: Path
) -> None:
    label = write_nifti(tmp_path / "l.nii.gz", CT.objects["lesion"].astype(np.uint8), CT.affine).read_bytes()
    before = attacker.send("GET", "/datastore/?output=all").json()
    for text in (
        f'{{"note": {HALF}}}',
        f'{{"a": {DEEP}}}',
        '{"a": NaN}',
        '{"a": 1e999}',
        "{",
        "[]",
        '{"a": ' + "9" * 5000 + "}",
    ):
        attacker.refused("PUT", "/datastore/image/info?image=ct", 400, data={"info": text})
        attacker.refused(
            "PUT",
            "/datastore/label?image=ct",
            400,
            data={"params": text},
            files={"label": ("l.nii.gz", label)},
        )
        attacker.refused("POST", "/infer/biosam2_point?image=ct", 400, data={"params": text})
        attacker.refused("POST", "/infer/wsi_v2/biosam2_point?image=ct", 400, data={"wsi": text})
        for path in (
            "/train/",
            "/train/biosam2",
            "/train/x",
            "/scoring/",
            "/scoring/x",
            "/activelearning/first",
            "/activelearning/x",
            "/batch/infer/x",
            "/batch/infer/biosam2_point",
            "/infer/wsi/biosam2_point?image=ct",
        ):
            for headers in ({}, {"Content-Type": "application/json"}):
                attacker.refused("POST", path, 400, data=text.encode(), headers=headers)
    assert attacker.send("GET", "/datastore/?output=all").json() == before


def test_what_was_a_bare_500_has_a_reason(attacker: Attacker) -> None:
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/proxy/dicom/qido/studies", {}),
        ("POST", "/proxy/dicom/stow/studies", {"data": b"x"}),
        ("GET", "/proxy/dicom/..;/x", {}),
        ("GET", "/datastore/dataset?limit_cases=0", {}),
        ("GET", "/datastore/dataset?limit_cases=-1", {}),
        ("GET", "/static/%00", {}),
        ("GET", "/static/..%2f..%2fapp.py", {}),
        ("POST", "/batch/infer/0?run_sync=true", {}),
        ("POST", "/batch/infer/biosam2_point?images=some", {}),
        ("POST", "/batch/infer/biosam2_point", {"json": {"label_tag": "../x"}}),
        ("POST", "/batch/infer/biosam2_point", {"json": {"label_tag": "final"}}),
        ("POST", "/batch/infer/biosam2_point", {"json": {"max_batch_size": "many"}}),
        (
            "POST",
            "/infer/biosam2_point?image=ct",
            {"data": {"params": "{}"}, "files": {"label": ("x.bin", b"1")}},
        ),
        ("POST", "/infer/biosam2_point", {"files": {"file": ("a\0b.nii", b"1")}}),
        ("POST", "/infer/biosam2_point", {"files": {"file": ("x." + "a" * 260, b"1")}}),
        ("PUT", "/datastore/image", {"files": {"file": ("x." + "a" * 260, b"1")}}),
        ("PUT", "/datastore/label?image=ct", {"files": {"label": ("x." + "a" * 260, b"1")}}),
        ("PUT", "/model/x", {"files": {"file": ("x.pt", bytes(range(256)) * 9)}}),
        ("PUT", "/model/x", {"files": {"file": ("x.pt", b"\x80\x02]q\x00.")}}),
        ("GET", "/session/x?update_ts=maybe", {}),
        ("PUT", "/session/?expiry=NaN", {}),
        ("POST", "/reload", {}),
    ]
    for method, path, options in cases:
        attacker.refused(method, path, **options)
    # Without nvidia-smi, 404.
    assert attacker.send("GET", "/logs/gpu").status_code in (200, 404)
    assert attacker.send("GET", "/ohif/.").status_code == 200
    assert attacker.server.alive


def _batch(attacker: Attacker, **body: Any) -> dict[str, Any]:
    answer = attacker.send("POST", "/batch/infer/biosam2_propagate?images=all", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _ended(attacker: Attacker) -> dict[str, Any]:
    give_up = time.monotonic() + LIMIT_S
    while True:
        # Answers while the run goes on: it is not in the event loop.
        task: dict[str, Any] = attacker.send("GET", "/batch/infer").json()
        if task["status"] != "RUNNING":
            return task
        assert time.monotonic() < give_up
        time.sleep(0.1)


def _is_complete(progress: dict[str, int]) -> bool:
    return progress["total"] == progress["done"] + progress["skipped"] + progress["failed"]


def test_a_batch_goes_on_where_it_ended_and_spares_what_people_made(
    attacker: Attacker, tmp_path: Path
) -> None:
    label = write_nifti(tmp_path / "l.nii.gz", CT.objects["lesion"].astype(np.uint8), CT.affine).read_bytes()
    put = attacker.send("PUT", "/datastore/label?image=ct&tag=auto", files={"label": ("l.nii.gz", label)})
    assert put.status_code == 200
    prompts = {"foreground": [LESION], "label_tag": "auto", "multi_gpu": True, "gpus": "all", "device": "cpu"}
    assert _batch(attacker, **prompts, max_batch_size=3)["status"] == "RUNNING"
    second = attacker.send("POST", "/batch/infer/biosam2_propagate", json=prompts)
    first = _ended(attacker)
    assert first["status"] in ("DONE", "ERROR"), first
    progress = first["progress"]
    assert _is_complete(progress)
    # On a fast machine the first batch has ended before the second request arrives.
    assert (second.status_code, progress["total"] == 3) in ((429, True), (200, False))
    assert attacker.send("GET", "/datastore/label?label=ct&tag=auto").content == label
    everything = _batch(attacker, **prompts)
    stopped = attacker.send("DELETE", "/batch/infer").json()
    assert stopped is None or stopped["id"] == everything["id"]
    # Where few images were left, all are through before it is stopped.
    assert (ended := _ended(attacker))["status"] == "STOPPED" or _is_complete(ended["progress"])
    attacker.send("POST", "/batch/infer/biosam2_propagate?run_sync=true", json=prompts)
    last = attacker.send("POST", "/batch/infer/biosam2_propagate?run_sync=true", json=prompts).json()
    assert last["progress"]["done"] == 0
    assert last["progress"]["skipped"] >= 2
    assert attacker.send("GET", "/datastore/label?label=ct&tag=auto").content == label
    info = attacker.send("GET", "/datastore/label/info?label=ct_nrrd&tag=auto").json()
    assert (info["automatic"], info["user"]) == (True, "admin")
    assert len(attacker.send("GET", "/batch/infer?all=true").json()) >= 3
    assert attacker.send("GET", "/batch/infer?check_if_running=true").status_code == 404


def test_health_and_metrics(attacker: Attacker) -> None:
    assert attacker.send("GET", "/health").json() == {"status": "ok"}
    Client(attacker.url).segment("biosam2_point", "ct", CLICK)
    text = attacker.send("GET", "/metrics").text
    for name in (
        'biosam2_requests_total{method="POST",route="/infer/{model}",status="200"}',
        'biosam2_stage_seconds_count{model="biosam2_point",stage="infer"}',
        "biosam2_heavy_pending 0.0",
        "process_resident_memory_bytes",
    ):
        assert name in text, name
    for path in range(30):
        attacker.send("GET", f"/nothing/{path}")
    assert "/nothing/" not in attacker.send("GET", "/metrics").text
