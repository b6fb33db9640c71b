"""Files that come into a folder while its datastore is open, in whatever way they come."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib.datastores.local import LocalFolder
from lib.datastores.record import FolderModel
from lib.datastores.scanner import FolderWatch

LIMIT_S = 60


def wait_for(what: Callable[[], object]) -> None:
    """Returns when it is so."""
    give_up = time.monotonic() + LIMIT_S
    while not what() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert what()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(b"an image")
    return folder


@pytest.fixture
def store(folder: Path) -> Iterator[LocalFolder]:
    store = LocalFolder(str(folder), extensions=["*.nii.gz"], auto_reload=True)
    yield store
    store.close()


@pytest.fixture
def refreshed(store: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images after each time that the folder was gone through."""
    counts: list[int] = []
    reconcile = store._scanner.reconcile

    def counted(record: FolderModel) -> None:
        reconcile(record)
        counts.append(len(record.objects))

    monkeypatch.setattr(store._scanner, "reconcile", counted)
    return counts


def _copied(folder: Path) -> None:
    (folder / "b.nii.gz").write_bytes(b"an image")


def _renamed_from(name: str) -> Callable[[Path], None]:
    def come(folder: Path) -> None:
        (folder / name).write_bytes(b"an image")
        (folder / name).rename(folder / "b.nii.gz")

    return come


def _moved_in(folder: Path) -> None:
    (folder.parent / "b.nii.gz").write_bytes(b"an image")
    (folder.parent / "b.nii.gz").rename(folder / "b.nii.gz")


@pytest.mark.parametrize(
    "come",
    [_copied, _renamed_from(".b.nii.gz.Xa3"), _renamed_from("b.nii.gz.part"), _moved_in],
    ids=["cp", "rsync", "browser", "mv"],
)
def test_an_image_is_seen_however_it_comes(
    store: LocalFolder, folder: Path, come: Callable[[Path], None]
) -> None:
    come(folder)
    wait_for(lambda: sorted(store.list_images()) == ["a", "b"])


def test_an_image_that_is_renamed_has_its_new_name(store: LocalFolder, folder: Path) -> None:
    (folder / "a.nii.gz").rename(folder / "b.nii.gz")
    wait_for(lambda: store.list_images() == ["b"])


def test_an_image_that_is_taken_away_is_no_longer_there(store: LocalFolder, folder: Path) -> None:
    (folder / "a.nii.gz").rename(folder.parent / "a.nii.gz")
    wait_for(lambda: store.list_images() == [])


@pytest.mark.parametrize("tag", ["final", "new"])
def test_a_label_that_comes_by_another_way_is_seen(store: LocalFolder, folder: Path, tag: str) -> None:
    labels = folder / "labels" / tag
    labels.mkdir(exist_ok=True)
    (labels / ".a.nii.gz.Q1").write_bytes(b"a label")
    (labels / ".a.nii.gz.Q1").rename(labels / "a.nii.gz")
    wait_for(lambda: store.get_labels_by_image_id("a") == {tag: "a"})
    shutil.rmtree(labels)
    wait_for(lambda: store.get_labels_by_image_id("a") == {})


def test_many_files_are_looked_at_together(store: LocalFolder, folder: Path, refreshed: list[int]) -> None:
    for number in range(100):
        (folder / f"b{number}.nii.gz").write_bytes(b"an image")
    wait_for(lambda: len(store.list_images()) == 101)
    # Once, unless this process was held up for half a second between two files.
    assert len(refreshed) < 100


def test_its_own_files_are_no_news(store: LocalFolder, folder: Path, refreshed: list[int]) -> None:
    file = folder.parent / "sent.nii.gz"
    file.write_bytes(b"sent")
    store.add_image("own", str(file), {})
    store.save_label("own", str(file), "final", {})
    store.update_image_info("own", {"a": 1})
    (folder / "b.nii.gz").write_bytes(b"an image")
    wait_for(lambda: refreshed)
    assert refreshed == [3]


def test_what_another_process_wrote_is_read(store: LocalFolder, folder: Path) -> None:
    other = LocalFolder(str(folder), extensions=["*.nii.gz"])
    other.update_image_info("a", {"score": 0.5})
    wait_for(lambda: store.get_image_info("a").get("score") == 0.5)


def test_a_file_that_came_while_the_folder_was_opened_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = LocalFolder.refresh

    def late(store: LocalFolder) -> None:
        refresh(store)
        monkeypatch.setattr(LocalFolder, "refresh", refresh)
        (folder / "b.nii.gz").write_bytes(b"an image")

    monkeypatch.setattr(LocalFolder, "refresh", late)
    store = LocalFolder(str(folder), extensions=["*.nii.gz"], auto_reload=True)
    try:
        wait_for(lambda: sorted(store.list_images()) == ["a", "b"])
    finally:
        store.close()


def test_a_watch_that_met_an_error_goes_on(folder: Path) -> None:
    seen: list[set[str]] = []

    def look(paths: set[Path]) -> None:
        seen.append({path.name for path in paths})
        if len(seen) == 1:
            raise OSError("the disk is away")

    watch = FolderWatch(folder, folder / "record.json", look)
    try:
        (folder / "b").write_bytes(b"")
        wait_for(lambda: seen == [{"b"}])
        (folder / "b").rename(folder / "c")
        wait_for(lambda: set().union(*seen[1:]) == {"b", "c"})
    finally:
        watch.stop()
    (folder / "d").write_bytes(b"")
    assert "d" not in set().union(*seen)


@pytest.mark.parametrize("polling", [False, True])
def test_a_file_that_is_only_read_is_no_news_and_the_one_to_read_is(folder: Path, polling: bool) -> None:
    record = folder / "record.json"
    record.write_bytes(b"{}")
    seen: set[str] = set()
    watch = FolderWatch(
        folder, record, lambda paths: seen.update(path.name for path in paths), polling=polling
    )
    try:
        (folder / "a.nii.gz").read_bytes()
        with (folder / "a.nii.gz").open("ab") as file:
            file.write(b"more")
        record.write_bytes(b'{"a": 1}')
        wait_for(lambda: "record.json" in seen)
    finally:
        watch.stop()
    assert seen == {"record.json"}
