"""What a client sent, before anything is done with it; over HTTP in ``tests/server/test_datastore.py``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fastapi import HTTPException, UploadFile

from lib.datastores.local import LocalFolder
from lib.errors import ImageError, LabelError
from lib.images.cache import ImageCache
from lib.server.checks import Checks, label_object, received
from tests.support import phantoms
from tests.support.studies import write_nifti

CT = phantoms.ct()


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    folder = tmp_path / "studies"
    folder.mkdir()
    write_nifti(folder / "ct.nii.gz", CT.image, CT.affine)
    write_nifti(folder / "two..dots.nii.gz", CT.image, CT.affine)
    return LocalFolder(str(folder), extensions=["*.nii.gz", "*.nrrd"])


@pytest.fixture
def checks(store: LocalFolder) -> Checks:
    return Checks(store, ImageCache(1 << 28, max_voxels=1 << 24))


@pytest.mark.parametrize(
    ("name", "stem", "kept_as"),
    [
        ("label.nii.gz", "label", "upload.nii.gz"),
        ("/cases/mine/1.2.840.113.NII.GZ", "1.2.840.113", "upload.nii.gz"),
        ("C:\\cases\\a b.seg.nrrd", "a b", "upload.seg.nrrd"),
        ("../../x.png", "x", "upload.png"),
        ("label", "label", "upload"),
    ],
)
def test_a_file_is_kept_under_its_type_alone(name: str, stem: str, kept_as: str) -> None:
    with received(UploadFile(io.BytesIO(b"content"), filename=name)) as (found, path):
        assert (found, path.name, path.read_bytes()) == (stem, kept_as, b"content")
    assert not path.exists()


def test_nothing_is_no_file() -> None:
    with (
        pytest.raises(ImageError, match=r"x\.nrrd is empty"),
        received(UploadFile(io.BytesIO(), filename="x.nrrd")),
    ):
        pass


def test_nothing_counts_as_an_empty_object() -> None:
    assert label_object("", "params") == {}
    assert label_object('{"label_info": null, "a": [1.5, "x"]}', "params")["a"] == [1.5, "x"]


def test_a_label_info_of_another_shape_is_refused() -> None:
    for text in (
        '{"label_info": {"name": "x"}}',
        '{"label_info": [{"name": ["x"]}]}',
        '{"params": {"label_info": [{"name": 1}]}}',
    ):
        with pytest.raises(HTTPException) as caught:
            label_object(text, "params")
        assert caught.value.status_code == 400


def test_a_file_type_that_is_none_is_refused() -> None:
    for name in ("x.a\0b", "x." + "a" * 300):
        upload = UploadFile(io.BytesIO(b"content"), filename=name)
        with pytest.raises(ImageError, match="Unsupported file type"), received(upload):
            pass


def test_an_id_is_known_by_what_is_there(checks: Checks) -> None:
    checks.require_image("ct")
    checks.require_image("two..dots")
    for name, status in [
        ("ct.nii", 404),
        ("../ct", 400),
        (".ct", 400),
        ("a\x00", 400),
        ("x" * 201, 400),
        ("患" * 67, 400),
    ]:
        with pytest.raises(HTTPException) as caught:
            checks.require_image(name)
        assert caught.value.status_code == status, name


def test_an_id_of_another_kind_of_store_is_good_where_it_is_listed() -> None:
    class Elsewhere:
        def list_images(self) -> list[str]:
            return ["project/subject/scan"]

        def get_image_uri(self, image_id: str) -> str:
            raise AssertionError(f"{image_id} must not be looked for")

    checks = Checks(Elsewhere(), ImageCache(0, max_voxels=1))
    checks.require_image("project/subject/scan")
    with pytest.raises(HTTPException) as caught:
        checks.require_image("project/../scan")
    assert caught.value.status_code == 400


def test_a_label_that_is_missing_is_named_with_those_that_are_not(
    checks: Checks, store: LocalFolder, tmp_path: Path
) -> None:
    label = write_nifti(tmp_path / "x.nii.gz", CT.objects["lesion"].astype(np.uint8), CT.affine)
    store.save_label("ct", str(label), "original", {})
    checks.require_label("ct", "original")
    with pytest.raises(HTTPException) as caught:
        checks.require_label("ct", "final")
    assert caught.value.status_code == 404
    assert "it has original" in caught.value.detail


def test_a_label_is_compared_with_its_image(checks: Checks, tmp_path: Path) -> None:
    lesion = CT.objects["lesion"].astype(np.uint8)
    good = write_nifti(tmp_path / "good.nii.gz", lesion, CT.affine)
    with checks.usable_label("ct", "final", good, None) as usable:
        assert usable == good
    raw = tmp_path / "label.bin"
    raw.write_bytes(lesion.tobytes(order="F"))
    with checks.usable_label("ct", "final", raw, None) as usable:
        assert usable.name.endswith(".nii.gz")
    assert not usable.exists()
    raw.write_bytes(b"\1\0")
    with pytest.raises(LabelError, match="2 bytes"), checks.usable_label("ct", "final", raw, None):
        pass


def test_an_image_is_new_unless_the_very_file_is_there(
    checks: Checks, store: LocalFolder, tmp_path: Path
) -> None:
    same = Path(store.get_image_uri("ct"))
    other = write_nifti(tmp_path / "other.nii.gz", CT.image + 1, CT.affine)
    assert checks.is_new_image("new", same)
    assert not checks.is_new_image("ct", same)
    assert checks.is_new_image("ct", other)
    store.save_label("ct", str(other), "final", {})
    assert not checks.is_new_image("ct", same)
    with pytest.raises(HTTPException) as caught:
        checks.is_new_image("ct", other)
    assert caught.value.status_code == 409
