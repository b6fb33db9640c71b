"""One record that several processes write: each as a datastore of its own on the same folder."""

from __future__ import annotations

import errno
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lib.datastores.local import LocalFolder
from lib.errors import InfoError

LABEL_INFO = [{"name": "bright", "idx": 1}, {"name": "dark", "idx": 2}]
TAGS = 15
RECORD = "datastore_v2.json"


def written(studies: Path) -> dict:
    return json.loads((studies / RECORD).read_text())["objects"]


def open_folder(studies: Path) -> LocalFolder:
    return LocalFolder(str(studies), extensions=("*.nii.gz", "*.png"))


@pytest.fixture
def studies(tmp_path):
    """A folder of images, which nobody looks into."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for number in range(3):
        (folder / f"case{number}.nii.gz").write_bytes(b"an image")
    return folder


@pytest.fixture
def label(tmp_path):
    """The file of a label, as a client sent it."""
    path = tmp_path / "sent.nii.gz"
    path.write_bytes(b"a label")
    return str(path)


@pytest.fixture
def two(studies):
    """The datastore as two processes have it."""
    return open_folder(studies), open_folder(studies)


def test_a_label_is_not_lost_by_who_did_not_know_of_it(two, studies, label):
    server, scorer = two
    server.save_label("case0", label, "final", {"label_info": LABEL_INFO})
    scorer.update_image_info("case1", {"score": 0.5})
    scorer.update_image_info("case0", {"score": 0.25})
    assert written(studies)["case0"]["labels"]["final"]["info"]["label_info"] == LABEL_INFO
    assert written(studies)["case1"]["image"]["info"]["score"] == 0.5
    # Neither has anybody lost anything of what it knew itself.
    server.update_image_info("case1", {"strategy": {"random": {"ts": 1}}})
    assert server.get_image_info("case0")["score"] == 0.25
    assert server.get_label_info("case0", "final")["label_info"] == LABEL_INFO
    assert written(studies)["case1"]["image"]["info"]["score"] == 0.5
    assert written(studies)["case1"]["image"]["info"]["strategy"] == {"random": {"ts": 1}}


def test_threads_that_change_at_once_lose_nothing_and_snapshots_stay_as_they_were(two, studies):
    server, scorer = two
    held = server._datastore.objects["case0"]
    with ThreadPoolExecutor(4) as threads:
        done = [
            threads.submit(store.update_image_info, "case0", {f"{name}{number}": number})
            for number in range(10)
            for name, store in (("a", server), ("b", scorer))
        ]
        for one in done:
            one.result(60)
    expected = {f"{name}{number}": number for name in "ab" for number in range(10)}
    assert expected.items() <= written(studies)["case0"]["image"]["info"].items()
    assert not expected.keys() & held.image.info.keys()


DAMAGES = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "no record": lambda content: b"[1, 2]",
    "binary": lambda content: bytes(range(256)),
    "too deep": lambda content: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", ["empty", "cut off", "others"])
def test_a_damaged_record_is_kept_under_another_name_and_rebuilt(studies, label, caplog, damage):
    for one in set(DAMAGES) - {"empty", "cut off"} if damage == "others" else {damage}:
        for broken in studies.glob(f"{RECORD}.broken-*"):
            broken.unlink()
        check_rebuilt(studies, label, caplog, one)


def check_rebuilt(studies, label, caplog, damage):
    open_folder(studies).save_label("case0", label, "final", {"label_info": LABEL_INFO})
    damaged = DAMAGES[damage]((studies / RECORD).read_bytes())
    (studies / RECORD).write_bytes(damaged)
    store = open_folder(studies)
    assert sorted(store.list_images()) == ["case0", "case1", "case2"]
    assert store.get_labeled_images() == ["case0"]
    assert list(written(studies)) == sorted(written(studies))
    (broken,) = studies.glob(f"{RECORD}.broken-*")
    assert broken.read_bytes() == damaged
    assert f"{RECORD} is damaged" in caplog.text
    assert broken.name in caplog.text


def test_one_image_of_a_record_that_cannot_be_read_costs_the_others_nothing(studies, label, caplog):
    store = open_folder(studies)
    for image in ("case0", "case1"):
        store.save_label(image, label, "final", {"label_info": LABEL_INFO})
    record = json.loads((studies / RECORD).read_text())
    record["objects"]["case1"]["image"]["info"]["note"] = "\ud83d"
    (studies / RECORD).write_text(json.dumps(record))
    store = open_folder(studies)
    assert sorted(store.get_labeled_images()) == ["case0", "case1"]
    assert store.get_label_info("case0", "final")["label_info"] == LABEL_INFO
    assert "label_info" not in store.get_label_info("case1", "final")
    assert "'case1' is damaged" in caplog.text


def test_a_byte_order_mark_is_read(studies, caplog):
    open_folder(studies).update_image_info("case0", {"a": 1})
    (studies / RECORD).write_bytes(b"\xef\xbb\xbf" + (studies / RECORD).read_bytes())
    assert open_folder(studies).get_image_info("case0")["a"] == 1
    assert "damaged" not in caplog.text


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def test_what_could_not_be_read_again_is_refused_and_changes_nothing(studies, label):
    for value in ("\ud83d", {"\ud83d": 1}, float("nan"), float("inf"), nested(400), nested(190)):
        check_refused(studies, label, value)


def check_refused(studies, label, value):
    store = open_folder(studies)
    store.save_label("case0", label, "final", {"label_info": LABEL_INFO})
    before = (studies / RECORD).read_bytes()
    for write in (
        lambda: store.update_image_info("case0", {"note": value}),
        lambda: store.update_label_info("case0", "final", {"note": value}),
        lambda: store.save_label("case1", label, "final", {"note": value}),
        lambda: store.add_image("new", label, {"note": value}),
    ):
        with pytest.raises(InfoError, match="cannot be saved as JSON"):
            write()
    assert (studies / RECORD).read_bytes() == before
    assert open_folder(studies).get_labeled_images() == ["case0"]
    store.update_image_info("case0", {"note": nested(100)})
    assert open_folder(studies).get_image_info("case0")["note"] == nested(100)


def test_a_full_disk_leaves_the_record_as_it_was(studies, label, monkeypatch):
    store = open_folder(studies)
    store.save_label("case1", label, "final", {})
    for path in (label, f"{label}.png"):
        Path(path).write_bytes(b"another label")

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lib.datastores.record.write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        store.update_image_info("case0", {"a": 1})
    with pytest.raises(OSError, match="No space left"):
        store.save_label("case0", label, "final", {})
    with pytest.raises(OSError, match="No space left"):
        store.save_label("case1", label, "final", {"by": "me"})
    with pytest.raises(OSError, match="No space left"):
        store.save_label("case1", f"{label}.png", "final", {})
    assert "a" not in store.get_image_info("case0")
    assert store.get_labeled_images() == ["case1"]
    assert [path.read_bytes() for path in (studies / "labels" / "final").iterdir()] == [b"a label"]


def test_half_a_file_is_made_whole(two, studies):
    server, scorer = two
    server.update_image_info("case0", {"a": 1})
    content = (studies / RECORD).read_text()
    (studies / RECORD).write_text(content[: len(content) // 2])
    server.update_image_info("case1", {"b": 1})
    assert written(studies)["case0"]["image"]["info"]["a"] == 1
    assert written(studies)["case1"]["image"]["info"]["b"] == 1
    scorer.refresh()
    assert scorer.get_image_info("case1")["b"] == 1


def test_a_file_that_was_deleted_comes_again(two, studies):
    server, _ = two
    (studies / RECORD).unlink()
    server.update_image_info("case0", {"a": 1})
    assert written(studies)["case0"]["image"]["info"]["a"] == 1
    assert len(written(studies)) == 3


def _annotate(datastore: LocalFolder, label: str) -> None:
    """A person: a label for every tag, each with the names of its classes."""
    for number in range(TAGS):
        told = {"label_info": LABEL_INFO, "client_id": str(number)}
        datastore.save_label("case0", label, f"tag{number}", told)


def _score(studies: Path, name: str, ready, begin) -> None:
    """A scoring process: a number for every image, over and over."""
    datastore = open_folder(studies)
    ready.release()
    begin.wait()
    for number in range(TAGS):
        for image in ("case0", "case1", "case2"):
            datastore.update_image_info(image, {f"{name}{number}": number / TAGS})


@pytest.mark.slow
def test_three_processes_that_write_at_once_lose_nothing(studies, label):
    server = open_folder(studies)
    # Forked: a new interpreter would import torch first.
    context = multiprocessing.get_context("fork")
    ready, begin = context.Semaphore(0), context.Event()
    processes = [
        context.Process(target=_score, args=(studies, "a", ready, begin)),
        context.Process(target=_score, args=(studies, "b", ready, begin)),
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    begin.set()
    _annotate(server, label)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    objects = written(studies)
    for number in range(TAGS):
        told = objects["case0"]["labels"][f"tag{number}"]["info"]
        assert (told["label_info"], told["client_id"]) == (LABEL_INFO, str(number))
        for image in ("case0", "case1", "case2"):
            for name in "ab":
                assert objects[image]["image"]["info"][f"{name}{number}"] == number / TAGS
    assert not list(studies.glob(f".{RECORD}-*"))
