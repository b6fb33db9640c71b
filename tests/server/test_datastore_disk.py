"""What disks and people do to a folder of studies: full, read-only, damaged, poisoned; the server says so."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests

from tests.support import studies
from tests.support.client import LIMIT_S, Client
from tests.support.datastore import CT, INFO, TRUTH, Store, reason_of, write_seg_nrrd
from tests.support.server import Server, copy_model_folder
from tests.support.studies import write_nifti

CLICK = {"foreground": [CT.click("lesion")]}
RECORD = "datastore_v2.json"
HALF = "\ud83d"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Function that makes a server, not started yet, on one CT unless there are studies."""
    servers: list[Server] = []

    def server(folder: Path | str | None = None) -> Server:
        if folder is None:
            folder = tmp_path / "studies"
            folder.mkdir()
            write_nifti(folder / "ct.nii.gz", CT.image, CT.affine)
        model = tmp_path / "model"
        if not model.exists():
            copy_model_folder(model)
        servers.append(Server(folder, tmp_path, {"model_dir": str(model), "labels": "lesion,organ"}))
        return servers[-1]

    yield server
    for one in servers:
        one.stop()


def fill(file: Path) -> None:
    """Fills the disk of a file."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(handle, b"0" * 4096)
    os.close(handle)


def poison(server: Server, label: Path) -> Mapping[str, Callable[[], requests.Response]]:
    """Requests whose text could not be read back from the record."""
    url, store = server.url, Store(server)

    def deep(start: str, end: str) -> str:
        return start + "[" * 400 + "]" * 400 + end

    def note(info: str) -> requests.Response:
        return store.ask("PUT", "/image/info", params={"image": "ct"}, files={"info": (None, info)})

    def following(client_id: str) -> requests.Response:
        json_type = {"Content-Type": "application/json"}
        body = f'{{"client_id": {client_id}}}'
        return requests.post(f"{url}/activelearning/first", data=body, headers=json_type, timeout=LIMIT_S)

    half = json.dumps(HALF)
    return {
        "half a character in image info": lambda: note(f'{{"note": {half}}}'),
        "deep image info": lambda: note(deep('{"a": ', "}")),
        "half a character in label info": lambda: store.put_label(
            label, raw=f'{{"label_info": [{{"name": {half}, "idx": 1}}]}}'
        ),
        "deep label info": lambda: store.put_label(label, raw=deep('{"a": ', "}")),
        "half a character in client_id": lambda: following(half),
        "deep client_id": lambda: following(deep("", "")),
    }


def test_records_and_labels_as_people_leave_them(make: Callable[..., Server], tmp_path: Path) -> None:
    server = make()
    folder = Path(server.studies)
    (folder / "labels" / "final").mkdir(parents=True)
    write_seg_nrrd(folder / "labels" / "final" / "ct.seg.nrrd")
    write_nifti(folder / "mr.nii.gz", CT.image, CT.affine)
    write_nifti(folder / "mr_seg.nii.gz", TRUTH, CT.affine)
    write_nifti(folder / "lost_label.nii", TRUTH, CT.affine)
    damaged = b'{"name": "n", "description": "d", "objects": {"ct"'
    (folder / RECORD).write_bytes(damaged)
    server.start()
    objects = Store(server).objects()
    found = {
        name: [f"{tag}{data['ext']}" for tag, data in item["labels"].items()]
        for name, item in objects.items()
    }
    assert found == {"ct": ["final.seg.nrrd"], "mr": ["final_seg.nii.gz"], "lost_label": []}
    assert Store(server).label("mr") == (folder / "mr_seg.nii.gz").read_bytes()
    (broken,) = folder.glob(f"{RECORD}.broken-*")
    assert broken.read_bytes() == damaged
    assert f"{RECORD} is damaged" in server.log
    assert "'lost_label.nii' is listed as an image" in server.log
    label = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    for kind, send in poison(server, label).items():
        assert 400 <= send().status_code < 500, kind
    assert Store(server).put_label(label).status_code == 200
    server.stop()
    (folder / RECORD).write_bytes(b"\xef\xbb\xbf" + (folder / RECORD).read_bytes())
    server.start()
    assert Store(server).objects()["ct"]["labels"]["final"]["info"]["label_info"] == INFO["label_info"]
    assert len(list(folder.glob(f"{RECORD}.broken-*"))) == 1


def test_read_only_studies_are_viewed_and_segmented(
    make: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_LABEL_DATASTORE_READ_ONLY", "true")
    server = make()
    before = studies.tree_digest(Path(server.studies))
    server.start()
    assert "is read-only: images are shown and segmented, and nothing is saved" in server.log
    store, client = Store(server), Client(server.url)
    assert store.ask("GET", "/image", params={"image": "ct"}).status_code == 200
    assert client.infer("biosam2_point", "ct", CLICK).status == 200
    chosen = requests.post(f"{server.url}/activelearning/random", json={"client_id": "me"}, timeout=LIMIT_S)
    assert (chosen.status_code, chosen.json()["id"]) == (200, "ct")
    label = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    info: dict[str, Any] = {"files": {"info": (None, '{"a": 1}')}}
    for refused in (
        store.put_label(label),
        store.put_image(label, image="new"),
        store.ask("PUT", "/image/info", params={"image": "ct"}, **info),
        store.ask("DELETE", "/image", params={"id": "ct"}),
    ):
        assert "read-only" in reason_of(refused, 403)
    assert studies.tree_digest(Path(server.studies)) == before


def test_a_wrong_studies_folder_ends_the_start_with_one_line(
    make: Callable[..., Server], tmp_path: Path
) -> None:
    file = write_nifti(tmp_path / "ct.nii.gz", CT.image, CT.affine)
    server = make(file)
    with pytest.raises(RuntimeError):
        server.start()
    assert server.log.count(f"--studies {file}: this is a file; give its folder") == 1
    assert "Traceback" not in server.log


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_named_and_costs_nothing(make: Callable[..., Server], tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode()}")
    server = make(folder)
    try:
        write_nifti(folder / "ct.nii.gz", CT.image, CT.affine)
        server.start()
        store = Store(server)
        label = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
        assert store.put_label(label).status_code == 200
        rng = np.random.default_rng(0)
        noise = tmp_path / "noise.nii"
        nib.save(nib.Nifti1Image(rng.integers(0, 255, (140, 140, 140), np.uint8), np.eye(4)), noise)
        reason_of(store.put_image(noise, image="large"), 507)
        fill(folder / "filler")
        other = write_nifti(tmp_path / "other.nii.gz", np.roll(TRUTH, 1, 0), CT.affine)
        assert "disk is full" in reason_of(store.put_label(other), 507)
        info = store.ask("PUT", "/image/info", params={"image": "ct"}, files={"info": (None, '{"a": "b"}')})
        assert "disk is full" in reason_of(info, 507)
        assert store.label() == label.read_bytes()
        assert Client(server.url).infer("biosam2_point", "ct", CLICK).status == 200
        (folder / "filler").unlink()
        assert store.put_label(other).status_code == 200
    finally:
        server.stop()
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder)
