"""No request reads or writes a file of the server that is not its own; MONAI Label opens any path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.support import studies
from tests.support.client import LIMIT_S, Answer, Client
from tests.support.server import Server

MR = studies.phantom("mr")
CLICK = {"foreground": [MR.click("tumour")]}
TASKS = ("biosam2_point", "biosam2_propagate", "sam_2d")


@pytest.fixture(scope="module")
def secret(outside: Path) -> Path:
    """A readable, valid image on the server's machine, outside of the datastore."""
    return studies.write_nifti(outside / "secret.nii.gz", MR.image, MR.affine)


def _relative(server: Server, secret: Path) -> str:
    return "../" * len(server.studies.parts[1:]) + str(secret).lstrip("/")


def _assert_refused(answer: Answer) -> None:
    assert 400 <= answer.status < 500, f"{answer.status}: {answer.body[:300]!r}"
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.detail) >= 20


WAYS: dict[str, Callable[[Server, Path], str]] = {
    "absolute": lambda server, secret: str(secret),
    "relative": _relative,
    "from the datastore": lambda server, secret: f"{server.studies}/{_relative(server, secret)}",
    "file url": lambda server, secret: secret.as_uri(),
    "folder": lambda server, secret: str(secret.parent),
    "parent": lambda server, secret: "../..",
    "text file": lambda server, secret: "/etc/hostname",
    "device": lambda server, secret: "/dev/zero",
    "with a null": lambda server, secret: f"ct\x00{secret}",
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("way", WAYS)
def test_a_path_in_the_query(client: Client, server: Server, secret: Path, task: str, way: str) -> None:
    _assert_refused(client.infer(task, WAYS[way](server, secret), CLICK))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("way", WAYS)
def test_a_path_in_params(client: Client, server: Server, secret: Path, task: str, way: str) -> None:
    _assert_refused(client.infer(task, "mr", {**CLICK, "image": WAYS[way](server, secret)}))


@pytest.mark.parametrize(
    "shape",
    [lambda p: [p], lambda p: [p, p], lambda p: {"path": p}, lambda p: None, lambda p: 7, lambda p: []],
    ids=["list", "two", "object", "null", "number", "nothing"],
)
def test_an_image_in_params_of_another_shape(
    client: Client, secret: Path, shape: Callable[[str], Any]
) -> None:
    _assert_refused(client.infer("biosam2_point", "mr", {**CLICK, "image": shape(str(secret))}))


def test_a_path_in_params_beside_an_upload(client: Client, secret: Path, tmp_path: Path) -> None:
    upload = studies.write_nifti(tmp_path / "own.nii.gz", MR.image, MR.affine)
    _assert_refused(client.infer("biosam2_point", "", {**CLICK, "image": str(secret)}, file=upload))


@pytest.mark.parametrize("where", ["query", "params"])
def test_a_file_in_the_folder_of_uploads(client: Client, server: Server, where: str) -> None:
    # Somebody else's upload lies there while their request runs.
    other = studies.write_nifti(server.temporary / "tmpother.nii.gz", MR.image, MR.affine)
    try:
        if where == "query":
            _assert_refused(client.infer("biosam2_point", str(other), CLICK))
        else:
            _assert_refused(client.infer("biosam2_point", "mr", {**CLICK, "image": str(other)}))
    finally:
        other.unlink()


def test_an_image_of_somebody_else_s_session(client: Client, tmp_path: Path) -> None:
    upload = studies.write_nifti(tmp_path / "own.nii.gz", MR.image, MR.affine)
    with upload.open("rb") as content:
        made = requests.put(
            f"{client.url}/session/", files={"files": ("own.nii.gz", content)}, timeout=LIMIT_S
        )
    session = made.json()
    _assert_refused(client.infer("biosam2_point", session["session_info"]["image"], CLICK))
    inside = {**CLICK, "image": session["session_info"]["image"]}
    _assert_refused(client.infer("biosam2_point", "mr", inside))
    requests.delete(f"{client.url}/session/{session['session_id']}", timeout=LIMIT_S)


def test_a_session_in_params(client: Client, secret: Path) -> None:
    plain = client.segment("biosam2_point", "mr", CLICK)
    inside = {**CLICK, "session": {"image": str(secret), "path": str(secret.parent), "name": "x"}}
    answer = client.infer("biosam2_point", "ct", {**inside, "foreground": [[0, 87, 6]]})
    _assert_refused(answer)  # [0, 87, 6] is in the secret and not in ct
    answer = client.infer("biosam2_point", "mr", inside)
    assert answer.status in (200, 400), answer.body[:300]
    if answer.status == 200:
        assert (answer.mask == plain.mask).all()


@pytest.mark.parametrize("session", ["no-such-session", "..", "../..", "/etc", "../studies"])
def test_a_session_that_is_none(client: Client, session: str) -> None:
    _assert_refused(client.infer("biosam2_point", "", CLICK, query={"session_id": session}))


def test_a_label_that_is_a_path_is_a_name(client: Client, secret: Path) -> None:
    plain = client.segment("biosam2_point", "mr", CLICK)
    answer = client.infer("biosam2_point", "mr", {**CLICK, "label": str(secret)})
    if answer.status == 200:
        assert (answer.mask == plain.mask).all()
    else:
        _assert_refused(answer)
    assert secret.exists()


@pytest.mark.parametrize(
    "params",
    [
        {"save_label": True, "label_tag": "../../../escaped"},
        {"result_extension": "/../../escaped.nrrd"},
        {"result_extension": "../../escaped.nii.gz"},
        {"result_extension": ".nrrd\x00.png"},
    ],
    ids=["label tag", "slash", "dots", "null"],
)
def test_nothing_is_written_elsewhere(client: Client, server: Server, params: dict[str, Any]) -> None:
    above = server.workdir.parent
    before = {path for path in above.rglob("*") if "escaped" in path.name}
    files = studies.tree_digest(server.studies)
    _assert_refused(client.infer("biosam2_point", "mr", {**CLICK, **params}))
    assert {path for path in above.rglob("*") if "escaped" in path.name} == before
    assert studies.tree_digest(server.studies) == files


@pytest.mark.parametrize("way", ["absolute", "relative", "file url", "text file"])
def test_the_slide_endpoint_reads_no_path_either(
    client: Client, server: Server, secret: Path, way: str
) -> None:
    body = {"level": 0, "location": [0, 0], "size": [0, 0], "params": CLICK}
    query = {"image": WAYS[way](server, secret), "output": "json"}
    answer = requests.post(f"{client.url}/infer/wsi/biosam2_point", params=query, json=body, timeout=LIMIT_S)
    assert 400 <= answer.status_code < 500, answer.text[:300]


def test_an_image_that_is_a_link_in_the_datastore_is_served(client: Client) -> None:
    # People link large studies into the folder: what the datastore lists is theirs to give.
    ct = studies.phantom("ct")
    prompts = {"foreground": [ct.click("lesion")], "result_extension": ".nrrd"}
    linked = client.segment("biosam2_point", "ct_linked", prompts)
    assert (linked.mask == client.segment("biosam2_point", "ct", prompts).mask).all()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_image_with_the_name_of_something_beside_the_server(
    client: Client, server: Server, kind: str
) -> None:
    expected = client.segment("biosam2_point", "mr", CLICK).mask
    beside = server.workdir / "mr"
    if kind == "folder":
        beside.mkdir()
    else:
        beside.write_text("no image")
    try:
        answer = client.segment("biosam2_point", "mr", CLICK)
    finally:
        beside.rmdir() if kind == "folder" else beside.unlink()
    np.testing.assert_array_equal(answer.mask, expected)


def test_an_upload_whose_name_is_nothing_but_ending(client: Client, tmp_path: Path) -> None:
    upload = studies.write_nifti(tmp_path / "own.nii.gz", MR.image, MR.affine)
    for name, status in ((f"x.{'a' * 240}", 422), (f"{'1.234' * 12}.nii.gz", 200)):
        with upload.open("rb") as content:
            answer = requests.post(
                f"{client.url}/infer/biosam2_point",
                data={"params": json.dumps(CLICK)},
                files={"file": (name, content)},
                timeout=LIMIT_S,
            )
        assert answer.status_code == status, answer.text[:300]
