import os
import threading
import time

import pytest

from lib.engine.interactive_priority import FLAG_FILE, LONGEST_S, Courtesy


def given_way(folder):
    """Starts a background worker; returns the event that it has gone on, and the thread."""
    done = threading.Event()
    worker = threading.Thread(target=lambda: (Courtesy(folder).give_way(), done.set()))
    worker.start()
    return done, worker


def test_nobody_waits_and_nothing_is_written(tmp_path):
    Courtesy(tmp_path).give_way()
    assert list(tmp_path.iterdir()) == []


def test_background_work_goes_on_when_the_last_person_has_an_answer(tmp_path):
    server = Courtesy(tmp_path)
    with server.interactive():
        with server.interactive():
            done, worker = given_way(tmp_path)
        assert not done.wait(0.2)
    worker.join()
    assert done.is_set()
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_an_answer_too(tmp_path):
    with pytest.raises(ValueError, match="bad prompt"), Courtesy(tmp_path).interactive():
        raise ValueError("bad prompt")
    Courtesy(tmp_path).give_way()


def test_what_a_killed_server_left_does_not_stop_background_work_for_ever(tmp_path):
    flag = tmp_path / FLAG_FILE
    flag.touch()
    long_ago = time.time() - LONGEST_S - 1
    os.utime(flag, (long_ago, long_ago))
    Courtesy(tmp_path).give_way()


def test_a_folder_that_cannot_be_written_harms_nobody(tmp_path):
    with Courtesy(tmp_path / "absent").interactive():
        Courtesy(tmp_path / "absent").give_way()
