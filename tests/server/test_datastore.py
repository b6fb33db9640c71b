"""The routes to images and labels: what is good is kept as it was sent."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import time
import zipfile
from pathlib import Path
from unittest.mock import ANY

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tests.support import slides, studies
from tests.support.client import LIMIT_S
from tests.support.datastore import (
    CT,
    INFO,
    TRUTH,
    Store,
    reason_of,
    require_ranges_and_tags,
    write_asap,
    write_grey_label,
    write_seg_nrrd,
)
from tests.support.server import Server
from tests.support.studies import write_nifti, write_nrrd


@pytest.fixture(scope="module")
def store(scratch: Server) -> Store:
    return Store(scratch)


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "seg.nrrd", "coarser", "without info", "nothing found"])
def test_a_good_label_of_a_volume_is_kept_as_it_was_sent(store: Store, tmp_path: Path, kind: str) -> None:
    coarse = CT.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    file = {
        "nii.gz": lambda: write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine),
        "nrrd": lambda: write_nrrd(tmp_path / "label.nrrd", TRUTH, CT.affine),
        "seg.nrrd": lambda: write_seg_nrrd(tmp_path / "label.seg.nrrd"),
        "coarser": lambda: write_nifti(tmp_path / "label.nii.gz", TRUTH[::2, ::2], coarse),
        "nothing found": lambda: write_nifti(tmp_path / "label.nii.gz", np.zeros_like(TRUTH), CT.affine),
        "without info": lambda: write_nifti(tmp_path / "label.nii", TRUTH, CT.affine),
    }[kind]()
    answer = store.put_label(file, params={} if kind == "without info" else INFO)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"image": "ct", "label": "ct", "version": ANY}
    assert store.label() == file.read_bytes()
    known = store.objects()["ct"]["labels"]["final"]["info"]
    assert known.get("label_info", INFO["label_info"]) == INFO["label_info"]
    # One label, in one file: what was there before does not come back when this one goes.
    assert [name for name in store.files() if name.startswith("labels/final/ct")] == [
        f"labels/final/{known['name']}"
    ]


@pytest.mark.parametrize("suffix", ["png", "xml"])
def test_a_good_label_of_a_picture_is_kept_as_it_was_sent(store: Store, tmp_path: Path, suffix: str) -> None:
    write = {"png": write_grey_label, "xml": write_asap}[suffix]
    file = write(tmp_path / f"label.{suffix}")
    answer = store.put_label(file, "grey", {"label_info": [{"name": "cell", "idx": 1}]})
    assert answer.status_code == 200, answer.text
    assert store.label("grey") == file.read_bytes()


def test_raw_bytes_become_a_volume_that_others_can_read(store: Store, tmp_path: Path) -> None:
    # As the former OHIF sends it: uint8 of the whole series, x fastest.
    file = tmp_path / "label.bin"
    file.write_bytes(TRUTH.tobytes(order="F"))
    assert store.put_label(file).status_code == 200
    kept = nib.Nifti1Image.from_bytes(gzip.decompress(store.label()))
    np.testing.assert_array_equal(np.asarray(kept.dataobj), TRUTH)
    np.testing.assert_allclose(kept.affine, CT.affine, atol=1e-5)


def test_names_of_a_client_s_machine_do_not_matter(store: Store, tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    for name in ("/cases/mine/1.2.840.113.nii.gz", "C:\\cases\\my label.NII.GZ", "../../etc/label.nii.gz"):
        assert store.put_label(file, name=name).status_code == 200
        assert store.objects()["ct"]["labels"]["final"]["ext"] == ".nii.gz"


def test_an_image_comes_and_goes(store: Store, tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "1.2.840.113.nii.gz", CT.image, CT.affine)
    assert store.put_image(file).json() == {"image": "1.2.840.113"}
    named = store.put_image(file, image="my scan", raw='{"station": 7}')
    assert named.json() == {"image": "my scan"}
    got = store.ask("GET", "/image", params={"image": "my scan"})
    assert got.content == file.read_bytes()
    assert store.ask("HEAD", "/image", params={"image": "my scan"}).status_code == 200
    info = store.ask("GET", "/image/info", params={"image": "my scan"}).json()
    assert info["station"] == 7
    assert Path(info["path"]).name == "my scan.nii.gz"
    changed = store.ask("PUT", "/image/info?image=my scan", files={"info": (None, '{"seen": true}')})
    assert changed.status_code == 200
    assert store.objects()["my scan"]["image"]["info"]["seen"] is True
    for name in ("my scan", "1.2.840.113"):
        assert store.ask("DELETE", "/image", params={"id": name}).status_code == 200
        assert not (store.server.studies / f"{name}.nii.gz").exists()


def test_an_image_of_any_type_that_can_be_opened_is_kept(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "SCAN.MHA"
    sitk.WriteImage(sitk.ReadImage(str(store.server.studies / "ct.nii.gz")), str(tmp_path / "scan.mha"))
    (tmp_path / "scan.mha").rename(file)
    assert store.put_image(file).json() == {"image": "SCAN"}
    assert store.put_label(write_nifti(tmp_path / "l.nii.gz", TRUTH, CT.affine), "SCAN").status_code == 200
    assert store.ask("GET", "/image", params={"image": "SCAN"}).content == file.read_bytes()
    assert store.ask("DELETE", "/image", params={"id": "SCAN"}).status_code == 200


@pytest.mark.parametrize("way", ["", "SHA256", "SHA512", "MD5"])
def test_a_client_asks_whether_its_file_is_the_one_here(store: Store, way: str) -> None:
    digest = hashlib.new(way or "SHA256", (store.server.studies / "ct.nii.gz").read_bytes()).hexdigest()
    for found, status in [(digest, 200), (digest[::-1], 404)]:
        query = {"image": "ct", "check_sum": f"{way}:{found}" if way else found}
        assert store.ask("HEAD", "/image", params=query).status_code == status
    unknown = {"image": "ct", "check_sum": f"CRC:{digest}"}
    assert store.ask("HEAD", "/image", params=unknown).status_code == 400


@pytest.mark.parametrize("name", ["slide.tif", "slide.svs"])
def test_a_slide_that_is_too_large_to_be_opened_takes_outlines(
    store: Store, tmp_path: Path, name: str
) -> None:
    pixels = slides.paint(640, 480, slides.scatter(640, 480, 3, seed=1), seed=1)
    assert pixels.shape[0] * pixels.shape[1] > studies.MAX_VOXELS
    file = slides.write_slide(tmp_path / name, pixels, description=slides.APERIO)
    image = name.replace(".", " ")
    assert store.put_image(file, image=image).status_code == 200
    outlines = write_asap(tmp_path / "label.xml", offset=300)
    assert store.put_label(outlines, image, {"label_info": [{"name": "cell", "idx": 1}]}).status_code == 200
    assert store.label(image) == outlines.read_bytes()
    for content, word in (("<ASAP_Annotations/>", "<Annotation>"), ("no outlines", "no XML")):
        outlines.write_text(content)
        assert word in reason_of(store.put_label(outlines, image), 422)
    outlines.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert store.put_image(outlines, name=name, image="cut off").status_code == 422
    assert store.ask("DELETE", "/image", params={"id": image}).status_code == 200


def test_another_image_does_not_take_the_place_of_one_with_labels(store: Store, tmp_path: Path) -> None:
    first = write_nifti(tmp_path / "a.nii.gz", CT.image, CT.affine)
    other = write_nifti(tmp_path / "b.nii.gz", CT.image + 1, CT.affine)
    label = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    assert store.put_image(first, image="kept").status_code == 200
    # Without labels, another file of this name is a correction.
    assert store.put_image(other, image="kept").status_code == 200
    assert store.put_label(label, "kept").status_code == 200
    assert store.put_image(other, image="kept").json() == {"image": "kept"}
    assert "final" in store.objects()["kept"]["labels"]
    assert "labels" in reason_of(store.put_image(first, image="kept"), 409)
    assert store.label("kept") == label.read_bytes()
    assert store.ask("DELETE", "/", params={"id": "kept"}).status_code == 200


def test_the_other_routes_answer_as_ever(store: Store, tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    assert store.put_label(file, tag="second").status_code == 200
    tagged = {"label": "ct", "tag": "second"}
    assert store.ask("GET", "/label/info", params=tagged).json()["label_info"] == INFO["label_info"]
    assert store.ask("PUT", "/label/info", params=tagged, files={"info": (None, "{}")}).status_code == 200
    old = store.ask("PUT", "/updatelabelinfo", params=tagged, files={"params": (None, '{"done": 1}')})
    assert old.status_code == 200
    assert store.ask("GET", "/label/info", params=tagged).json()["done"] == 1
    assert store.ask("HEAD", "/label", params={"image": "ct", "tag": "second"}).status_code == 200
    assert store.ask("DELETE", "/label", params={"id": "ct", "tag": "second"}).status_code == 200
    assert store.put_label(file).status_code == 200
    assert "total" in store.ask("GET", "/").json()
    pairs = store.ask("GET", "/", params={"output": "train"}).json()
    assert any(pair["image"].endswith("ct.nii.gz") for pair in pairs)


def test_the_images_with_their_labels_as_one_file(store: Store, tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    assert store.put_label(file).status_code == 200
    image = write_nifti(tmp_path / "a.nii.gz", CT.image, CT.affine)
    assert store.put_image(image, image="former").status_code == 200
    assert store.put_label(file, "former").status_code == 200
    before = set(store.server.temporary.rglob("*"))
    # Of an image that was renamed a moment ago there is no label, until that is renamed as well.
    (store.server.studies / "former.nii.gz").rename(store.server.studies / "renamed.nii.gz")
    for _ in range(2):
        archive = store.ask("GET", "/dataset")
        assert archive.status_code == 200, archive.text
        with zipfile.ZipFile(io.BytesIO(archive.content)) as packed:
            assert packed.read("label/ct.nii.gz") == file.read_bytes()
            assert not any("former" in name or "renamed" in name for name in packed.namelist())
    # The server deletes it when it is sent, of which the client knows a moment earlier.
    give_up = time.monotonic() + LIMIT_S
    while set(store.server.temporary.rglob("*")) - before and time.monotonic() < give_up:
        time.sleep(0.05)
    assert set(store.server.temporary.rglob("*")) <= before
    assert store.ask("DELETE", "/image", params={"id": "renamed"}).status_code == 200
    (store.server.studies / "labels" / "final" / "former.nii.gz").unlink()


def test_files_are_sent_in_parts_and_not_twice(store: Store, tmp_path: Path) -> None:
    url = f"{store.server.url}/datastore"
    file = write_nifti(tmp_path / "parts.nii.gz", CT.image, CT.affine)
    store.put_image(file)
    require_ranges_and_tags(f"{url}/image", {"image": "parts"})
    store.put_label(write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine), image="parts")
    require_ranges_and_tags(f"{url}/label", {"label": "parts", "tag": "final"})
    # A file of the same size and time, as rsync -t leaves it, is another one.
    (kept,) = store.server.studies.glob("parts*.nii.gz")
    known, stat = store.ask("GET", "/image", params={"image": "parts"}), kept.stat()
    changed = bytearray(known.content)
    changed[4] ^= 1  # the time in the header of gzip
    other = tmp_path / "other"
    other.write_bytes(changed)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(kept)
    query = {"params": {"image": "parts"}, "headers": {"If-None-Match": known.headers["ETag"]}}
    assert store.ask("GET", "/image", **query).content == bytes(changed)
    assert store.ask("DELETE", "/image", params={"id": "parts"}).ok
