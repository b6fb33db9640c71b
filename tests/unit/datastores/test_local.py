"""A folder of images and labels that is whole at any moment."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException

from lib.datastores.local import LocalFolder, open_folder
from lib.errors import ConflictError, ReadOnlyError, SettingsError


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "ct.nii.gz").write_bytes(b"an image")
    return LocalFolder(str(folder), extensions=["*.nii.gz", "*.nrrd"])


def _file(tmp_path: Path, name: str, content: bytes = b"content") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


def _labels(store: LocalFolder) -> dict[str, bytes]:
    folder = Path(store._datastore_path) / "labels" / "final"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_label_is_kept_with_what_was_said_of_it(store: LocalFolder, tmp_path: Path) -> None:
    info = {"label_info": [{"name": "spleen", "idx": 1}]}
    assert store.save_label("ct", _file(tmp_path, "x.nii.gz"), "final", info) == "ct"
    assert _labels(store) == {"ct.nii.gz": b"content"}
    assert store.get_label_info("ct", "final")["label_info"] == info["label_info"]
    assert store.get_label_info("ct", "final")["name"] == "ct.nii.gz"
    assert info == {"label_info": [{"name": "spleen", "idx": 1}]}


def test_a_label_replaces_the_version_that_it_was_made_from_alone(store: LocalFolder, tmp_path: Path) -> None:
    other = LocalFolder(store._datastore_path)
    file, info = Path(_file(tmp_path, "x.nii.gz")), {"client_id": "anna"}
    first = store.replace_label("ct", file, "final", info, "")
    # Within one second, by another server of the same folder, with the same bytes.
    second = other.replace_label("ct", file, "final", info, first.version)
    assert second.version != first.version
    assert store.label_version("ct", "final") == second.version
    for stale in (first.version, ""):
        with pytest.raises(ConflictError, match="saved by anna after yours was loaded"):
            store.replace_label("ct", file, "final", {}, stale)
    # A program that writes the file itself is noticed as well.
    copied = Path(store.get_label_uri("ct", "final"))
    copied.write_bytes(b"other content")
    with pytest.raises(ConflictError):
        store.replace_label("ct", file, "final", {}, second.version)
    assert copied.read_bytes() == b"other content"
    known = store.label_version("ct", "final")
    other.remove_label("ct", "final")
    with pytest.raises(ConflictError, match="has been removed"):
        store.replace_label("ct", file, "final", {}, known)
    assert store.replace_label("ct", file, "final", {}).version


def test_a_label_of_another_type_takes_the_former_s_place(store: LocalFolder, tmp_path: Path) -> None:
    store.save_label("ct", _file(tmp_path, "x.nii.gz"), "final", {})
    store.save_label("ct", _file(tmp_path, "y.nrrd", b"newer"), "final", {})
    assert _labels(store) == {"ct.nrrd": b"newer"}
    store.remove_label("ct", "final")
    assert store.get_labels_by_image_id("ct") == {}


def test_monai_labels_own_tags_are_plain_names(store: LocalFolder, tmp_path: Path) -> None:
    store.save_label("ct", _file(tmp_path, "x.nii.gz"), DefaultLabelTag.FINAL, {})
    assert _labels(store) == {"ct.nii.gz": b"content"}
    assert Path(store.get_label_uri("ct", "final")).is_file()
    store.remove_label("ct", DefaultLabelTag.FINAL)
    assert _labels(store) == {}


def test_an_image_of_another_type_takes_the_former_s_place(store: LocalFolder, tmp_path: Path) -> None:
    assert store.add_image("ct", _file(tmp_path, "y.nrrd", b"newer"), {"station": 7}) == "ct"
    assert Path(store.get_image_uri("ct")).read_bytes() == b"newer"
    assert store.get_image_info("ct")["station"] == 7
    assert store.list_images() == ["ct"]
    assert not (Path(store._datastore_path) / "ct.nii.gz").exists()
    store.remove_image("ct")
    assert store.list_images() == []


def test_an_image_without_an_id_is_called_as_its_file(store: LocalFolder, tmp_path: Path) -> None:
    assert store.add_image("", _file(tmp_path, "1.2.840.nii.gz"), {}) == "1.2.840"


def test_what_a_link_points_at_is_left_alone(store: LocalFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.nii.gz"
    elsewhere.write_bytes(b"not ours")
    (Path(store._datastore_path) / "linked.nii.gz").symlink_to(elsewhere)
    store.refresh()
    store.add_image("linked", _file(tmp_path, "new.nii.gz"), {})
    assert elsewhere.read_bytes() == b"not ours"


def test_a_label_without_its_image_is_refused(store: LocalFolder, tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundException):
        store.save_label("nobody", _file(tmp_path, "x.nii.gz"), "final", {})


def test_an_error_while_a_label_is_written_leaves_the_former_one(
    store: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_label("ct", _file(tmp_path, "x.nii.gz", b"former"), "final", {"by": "me"})

    def full(source: str, target: Path) -> None:
        Path(target).write_bytes(b"ha")
        raise OSError("no space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="no space"):
        store.save_label("ct", _file(tmp_path, "y.nii.gz"), "final", {})
    assert _labels(store) == {"ct.nii.gz": b"former"}
    assert store.get_label_info("ct", "final")["by"] == "me"


def test_a_process_that_is_killed_while_it_writes_leaves_the_former_label(
    store: LocalFolder, tmp_path: Path
) -> None:
    store.save_label("ct", _file(tmp_path, "x.nii.gz", b"former"), "final", {})
    label = _file(tmp_path, "y.nii.gz")

    def half(source: str, target: Path) -> None:
        Path(target).write_bytes(b"ha")
        os.kill(os.getpid(), signal.SIGKILL)

    def save() -> None:
        shutil.copyfile = half  # type: ignore[assignment]
        store.save_label("ct", label, "final", {})

    ended = multiprocessing.get_context("fork").Process(target=save)
    ended.start()
    ended.join()
    assert ended.exitcode == -signal.SIGKILL
    opened = LocalFolder(str(store._datastore_path), extensions=["*.nii.gz", "*.nrrd"])
    assert opened.list_images() == ["ct"]
    assert Path(opened.get_label_uri("ct", "final")).read_bytes() == b"former"


def test_the_state_tells_what_another_server_wrote(store: LocalFolder, tmp_path: Path) -> None:
    other = LocalFolder(store._datastore_path, extensions=["*.nii.gz"], auto_reload=False)
    before = other.state
    assert other.state == before
    store.save_label("ct", _file(tmp_path, "x.nii.gz"), "final", {})
    assert other.state != before
    assert other.status()["completed"] == 1


def test_read_only_studies_are_shown_and_nothing_is_written(store: LocalFolder, tmp_path: Path) -> None:
    store.save_label("ct", _file(tmp_path, "x.nii.gz"), "final", {"by": "me"})
    folder = Path(store._datastore_path)
    (folder / "new.nrrd").write_bytes(b"an image")
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    opened = LocalFolder(str(folder), extensions=["*.nii.gz", "*.nrrd"], read_only=True)
    assert sorted(opened.list_images()) == ["ct", "new"]
    assert opened.get_label_info("ct", "final")["by"] == "me"
    file = _file(tmp_path, "y.nii.gz")
    for write in (
        lambda: opened.save_label("ct", file, "final", {}),
        lambda: opened.add_image("other", file, {}),
        lambda: opened.remove_label("ct", "final"),
        lambda: opened.remove_image("ct"),
    ):
        with pytest.raises(ReadOnlyError, match="read-only: nothing was saved"):
            write()
    # Scores and skipped images are remembered until the server stops.
    opened.update_image_info("ct", {"score": 0.5})
    opened.refresh()
    assert opened.get_image_info("ct")["score"] == 0.5
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    for path in (_file(tmp_path, "a.nii.gz"), _file(tmp_path, "b") + "/below"):
        with pytest.raises(SettingsError, match=f"^--studies {path}: this is a file; give its folder"):
            open_folder(path)


def test_temporary_files_of_killed_processes_are_swept(store: LocalFolder) -> None:
    folder = Path(store._datastore_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [folder / f".ct.nii.gz-{ended.pid}.part-a1", folder / "labels/final" / f".x-{ended.pid}.part-b"]
    kept = [folder / f".ct.nii.gz-{os.getppid()}.part-a1", folder / ".mine", folder / ".x-12.part"]
    for path in left + kept:
        path.write_bytes(b"half")
    LocalFolder(str(folder))
    assert [path.exists() for path in left + kept] == [False, False, True, True, True]
