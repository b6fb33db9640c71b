"""The routes to images and labels: what is no good is refused with a reason, and changes nothing."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.datastore import CT, TRUTH, Store, reason_of, write_asap, write_grey_label
from tests.support.server import Server
from tests.support.studies import write_nifti, write_nrrd

# Where a NIfTI file keeps the first number of its affine.
SROW_X = 280


@pytest.fixture(scope="module")
def store(scratch: Server) -> Store:
    return Store(scratch)


@pytest.fixture
def unchanged(store: Store) -> Iterator[Store]:
    """The datastore, which is the same afterwards, and answers."""
    files, labels = store.files(), store.labels()
    yield store
    assert store.files() == files
    assert store.labels() == labels


def _bad_labels(folder: Path) -> dict[str, Path]:
    good = write_nifti(folder / "good.nii.gz", TRUTH, CT.affine)
    away = CT.affine.copy()
    away[:3, 3] += 2000
    files = {
        "empty file": folder / "empty.nii.gz",
        "garbage": folder / "garbage.nii.gz",
        "cut off": folder / "cut.nii.gz",
        "no label type": folder / "label.txt",
        "without type": folder / "label",
        "of short bytes": folder / "short.bin",
    }
    files["empty file"].write_bytes(b"")
    files["garbage"].write_bytes(gzip.compress(b"this is no label " * 300))
    files["cut off"].write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    files["no label type"].write_text("a label")
    files["without type"].write_bytes(good.read_bytes())
    files["of short bytes"].write_bytes(b"\1" * 100)
    files["elsewhere"] = write_nifti(folder / "away.nii.gz", TRUTH, away)
    files["impossible grid"] = write_nrrd(folder / "parallel.nrrd", TRUTH, CT.affine)
    header = files["impossible grid"].read_bytes()
    start = header.index(b"space directions: ") + len(b"space directions: ")
    stop = header.index(b"\n", start)
    files["impossible grid"].write_bytes(header[:start] + b"(1,0,0) (1,0,0) (0,0,3)" + header[stop:])
    files["grid of nan"] = write_nifti(folder / "nan.nii", TRUTH, CT.affine)
    content = bytearray(files["grid of nan"].read_bytes())
    content[SROW_X : SROW_X + 4] = np.float32(np.nan).tobytes()
    files["grid of nan"].write_bytes(content)
    files["probabilities"] = write_nifti(folder / "half.nii.gz", TRUTH / np.float32(4), CT.affine)
    files["another picture's"] = write_grey_label(folder / "cell.png")
    files["polygons"] = write_asap(folder / "polygons.xml")
    return files


def test_a_label_that_no_training_could_read_is_refused(unchanged: Store, tmp_path: Path) -> None:
    for kind, file in _bad_labels(tmp_path).items():
        assert reason_of(unchanged.put_label(file), 422), kind


def test_why_a_label_of_another_image_is_refused(unchanged: Store, tmp_path: Path) -> None:
    reason = reason_of(unchanged.put_label(_bad_labels(tmp_path)["elsewhere"]), 422)
    assert "mm apart" in reason
    reason = reason_of(unchanged.put_label(write_grey_label(tmp_path / "cell.png"), "tiny"), 422)
    assert "104 x 72 x 1" in reason
    assert "30 x 20 x 1" in reason


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ("{", "not valid JSON"),
        ("[]", "object"),
        ("7", "object"),
        ('{"label_info": "spleen"}', "label_info"),
        ('{"label_info": [1]}', "label_info"),
        ('{"a": NaN}', "NaN"),
    ],
)
def test_params_that_are_no_plain_json_are_refused(
    unchanged: Store, tmp_path: Path, raw: str, word: str
) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    assert word in reason_of(unchanged.put_label(file, raw=raw), 400)
    assert word in reason_of(unchanged.put_image(file, raw=raw, image="other"), 400)
    if "label_info" not in raw:
        info = {"info": (None, raw)}
        assert word in reason_of(unchanged.ask("PUT", "/image/info?image=ct", files=info), 400)


def test_a_tag_that_can_be_no_folder_is_refused(unchanged: Store, tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    for tag in ("..", "a/b", "a b", "x" * 65, "\\"):
        assert "tag" in reason_of(unchanged.put_label(file, tag=tag), 400)


@pytest.mark.parametrize(
    ("image", "status"),
    [
        ("nobody", 404),
        ("../ct", 400),
        ("/etc/passwd", 400),
        ("a\\b", 400),
        ("..", 400),
        (".", 400),
        ("", 400),
    ],
)
def test_an_id_that_is_not_there_is_refused_by_every_route(
    unchanged: Store, tmp_path: Path, image: str, status: int
) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    reason_of(unchanged.put_label(file, image), status)
    for method, path in [("GET", "/image"), ("GET", "/image/info"), ("PUT", "/image/info")]:
        reason_of(unchanged.ask(method, path, params={"image": image}), status)
    tagged = {"tag": "final"}
    for method, path in [("GET", "/label"), ("GET", "/label/info"), ("PUT", "/label/info")]:
        reason_of(unchanged.ask(method, path, params={"label": image, **tagged}), status)
    for path in ("/", "/image"):
        reason_of(unchanged.ask("DELETE", path, params={"id": image}), status)
    reason_of(unchanged.ask("DELETE", "/label", params={"id": image, **tagged}), status)
    assert unchanged.ask("HEAD", "/image", params={"image": image}).status_code == status
    assert unchanged.ask("HEAD", "/label", params={"image": image, **tagged}).status_code == status


def test_a_label_that_is_not_there_is_said_to_be_missing(unchanged: Store) -> None:
    assert "it has none" in reason_of(
        unchanged.ask("GET", "/label", params={"label": "mr", "tag": "final"}), 404
    )


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("garbage.nii.gz", (422,)),
        ("truncated.nii.gz", (422,)),
        ("nan.nii.gz", (422,)),
        ("four_d.nii.gz", (422,)),
        ("empty.nrrd", (422,)),
        ("garbage_picture.png", (422,)),
        ("large.nii.gz", (413,)),
    ],
)
def test_an_image_that_cannot_be_opened_is_refused(
    unchanged: Store, name: str, statuses: tuple[int, ...]
) -> None:
    reason_of(unchanged.put_image(unchanged.server.studies / name, image="new"), *statuses)


def test_an_image_of_a_type_that_is_not_listed_is_refused(unchanged: Store, tmp_path: Path) -> None:
    file = tmp_path / "image.vtk"
    file.write_bytes(b"an image that nobody here can open")
    assert ".nii.gz" in reason_of(unchanged.put_image(file), 422)


def test_an_id_that_is_too_long_for_a_file_s_name_is_refused(unchanged: Store) -> None:
    file = unchanged.server.studies / "ct.nii.gz"
    for image in ("a" * 201, "\u60a3\u8005" * 50):
        assert "200 bytes" in reason_of(unchanged.put_image(file, image=image), 400)
