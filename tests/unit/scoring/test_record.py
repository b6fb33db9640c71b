from __future__ import annotations

import json
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore

from lib.scoring.record import open_shared, share_record
from tests.unit.scoring.conftest import LABEL_INFO, write_label

TAGS = 15
RECORD = "datastore_v2.json"


def written(studies: Path) -> dict:
    return json.loads((studies / RECORD).read_text())["objects"]


@pytest.fixture
def two(open_datastore):
    """The datastore as two processes have it."""
    first, second = open_datastore(), open_datastore()
    for datastore in (first, second):
        share_record(datastore)
    return first, second


def test_a_label_is_not_lost_by_who_did_not_know_of_it(two, studies, tmp_path):
    server, scorer = two
    server.save_label("case0", str(write_label(tmp_path, "case0", 0)), "final", {"label_info": LABEL_INFO})
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


def test_without_sharing_it_would_be_lost(open_datastore, studies, tmp_path):
    server, scorer = open_datastore(), open_datastore()
    server.save_label("case0", str(write_label(tmp_path, "case0", 0)), "final", {"label_info": LABEL_INFO})
    scorer.update_image_info("case1", {"score": 0.5})
    assert "final" not in written(studies)["case0"]["labels"]


def test_what_a_thread_holds_while_others_are_read_is_not_orphaned(two, studies, tmp_path):
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


def test_what_is_done_under_the_lock_can_be_left_to_one_thread(two, studies, tmp_path):
    server, scorer = two
    threads = set()

    class Noted(ThreadPoolExecutor):
        def submit(self, work, *arguments):
            def noted():
                threads.add(threading.current_thread().name)
                return work(*arguments)

            return super().submit(noted)

    with Noted(1, thread_name_prefix="urgent") as urgent:
        share_record(scorer, urgent)
        share_record(scorer)
        scorer.update_image_info("case0", {"score": 0.5})
        scorer.save_label(
            "case1", str(write_label(tmp_path, "case1", 1)), "final", {"label_info": LABEL_INFO}
        )
        server.update_image_info("case2", {"other": 1})
        scorer.refresh()
    assert threads == {"urgent_0"}
    assert written(studies)["case0"]["image"]["info"]["score"] == 0.5
    assert written(studies)["case1"]["labels"]["final"]["info"]["label_info"] == LABEL_INFO
    assert scorer.get_image_info("case2")["other"] == 1


def test_sharing_twice_is_sharing_once(open_datastore):
    datastore = open_datastore()
    share_record(datastore)
    once = datastore._update_datastore_file
    share_record(datastore)
    assert datastore._update_datastore_file == once


def test_a_datastore_without_such_a_record_is_left_alone():
    share_record(object())


def test_a_shared_datastore_finds_the_images_of_its_folder_and_keeps_what_the_record_says(
    studies, open_datastore, monkeypatch
):
    open_datastore().update_image_info("case0", {"a": 1})
    (studies / "case2.nii.gz").unlink()
    (studies / "case9.nii.gz").write_bytes(b"new")
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_READ_ONLY", False)

    def make():
        read_only = settings.MONAI_LABEL_DATASTORE_READ_ONLY
        return LocalDatastore(str(studies), auto_reload=False, read_only=read_only)

    datastore = open_shared(make)
    assert sorted(datastore.list_images()) == ["case0", "case1", "case9"]
    assert sorted(written(studies)) == ["case0", "case1", "case9"]
    assert datastore.get_image_info("case0")["a"] == 1
    assert settings.MONAI_LABEL_DATASTORE_READ_ONLY is False


def test_a_server_that_watches_its_folder_sees_what_another_process_wrote(studies, open_datastore):
    server = LocalDatastore(str(studies), auto_reload=True)
    scorer = open_datastore()
    try:
        share_record(server)
        share_record(scorer)
        scorer.update_image_info("case0", {"score": 0.5})
        give_up = time.monotonic() + 60
        while "score" not in server.get_image_info("case0") and time.monotonic() < give_up:
            time.sleep(0.05)
        assert server.get_image_info("case0")["score"] == 0.5
    finally:
        server._observer.stop()
        server._observer.join()


def _annotate(datastore: LocalDatastore, labels: Path) -> None:
    """A person: a label for every tag, each with the names of its classes."""
    for number in range(TAGS):
        told = {"label_info": LABEL_INFO, "client_id": str(number)}
        datastore.save_label("case0", str(labels / "case0.nii.gz"), f"tag{number}", told)


def _score(studies: Path, name: str, ready, begin) -> None:
    """A scoring process: a number for every image, over and over."""
    datastore = LocalDatastore(str(studies), auto_reload=False)
    share_record(datastore)
    ready.release()
    begin.wait()
    for number in range(TAGS):
        for image in ("case0", "case1", "case2"):
            datastore.update_image_info(image, {f"{name}{number}": number / TAGS})


@pytest.mark.slow
def test_three_processes_that_write_at_once_lose_nothing(studies, open_datastore, tmp_path):
    server = open_datastore()
    share_record(server)
    labels = write_label(tmp_path / "drawn", "case0", 0).parent
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
    _annotate(server, labels)
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
