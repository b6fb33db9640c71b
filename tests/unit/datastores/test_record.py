"""One record that several processes write: each as a datastore of its own on the same folder."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import threading
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lib.datastores.local import LocalFolder

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


def test_what_a_thread_holds_while_others_are_read_is_not_orphaned(two, studies, label):
    server, scorer = two
    held = server._datastore.objects["case0"]
    scorer.update_image_info("case0", {"score": 0.5})
    server.refresh()
    held.image.info["mine"] = 1
    server.update_image_info("case1", {"other": 1})
    assert written(studies)["case0"]["image"]["info"]["mine"] == 1
    assert written(studies)["case0"]["image"]["info"]["score"] == 0.5


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


def test_what_is_done_under_the_lock_can_be_left_to_one_thread(two, studies, label):
    server, scorer = two
    threads = set()

    class Noted(ThreadPoolExecutor):
        def submit(self, work, *arguments):
            def noted():
                threads.add(threading.current_thread().name)
                return work(*arguments)

            return super().submit(noted)

    with Noted(1, thread_name_prefix="urgent") as urgent:
        scorer.write_by(urgent)
        scorer.update_image_info("case0", {"score": 0.5})
        scorer.save_label("case1", label, "final", {"label_info": LABEL_INFO})
        server.update_image_info("case2", {"other": 1})
        scorer.refresh()
    assert threads == {"urgent_0"}
    assert written(studies)["case0"]["image"]["info"]["score"] == 0.5
    assert written(studies)["case1"]["labels"]["final"]["info"]["label_info"] == LABEL_INFO
    assert scorer.get_image_info("case2")["other"] == 1


def test_who_holds_the_lock_needs_no_other_thread(two, label):
    _, scorer = two
    keep, entered = scorer._keep, threading.Event()
    with ThreadPoolExecutor(1) as urgent, ThreadPoolExecutor(2) as people:
        scorer.write_by(urgent)

        def keep_slowly(*given):
            # Somebody else's work waits on the one thread for the lock that is held here.
            looking = people.submit(scorer.refresh)
            entered.set()
            with contextlib.suppress(futures.TimeoutError):
                looking.result(0.5)
            return keep(*given)

        scorer._keep = keep_slowly
        assert people.submit(scorer.save_label, "case1", label, "final", {}).result(10) == "case1"
        assert entered.is_set()


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
    context = multiprocessing.get_context("spawn")
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
