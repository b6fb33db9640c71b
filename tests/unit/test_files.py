import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock

from lib import files
from lib.errors import ReadOnlyError, StorageFullError
from lib.files import is_locked, replacing, storage_errors, write_atomically
from tests.support.server import APP


def test_a_file_is_written_with_its_folder(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "file.json", b"{}")
    assert (tmp_path / "a" / "b" / "file.json").read_bytes() == b"{}"


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_find_the_old_content_or_the_new(tmp_path):
    path = tmp_path / "file"
    contents = {bytes([65 + number]) * 100_000 for number in range(4)}
    write_atomically(path, min(contents))
    done = threading.Event()
    seen = set()

    def read():
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        for content in contents:
            write_atomically(path, content)
    done.set()
    reader.join()
    assert seen <= contents


def test_who_looks_whether_a_lock_is_held_does_not_seem_to_hold_it(tmp_path, monkeypatch):
    """The lock is taken for a moment to find out."""
    lock = FileLock(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")
    with ThreadPoolExecutor(1) as pool:
        with lock:
            assert is_locked(tmp_path / "lock")
            monkeypatch.setattr(files, "PROBED_S", 60)
            other = pool.submit(is_locked, tmp_path / "lock")
            time.sleep(0.1)
        assert not other.result()


def test_all_may_read_what_was_written(tmp_path):
    write_atomically(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_errors_of_a_full_or_protected_disk_say_what_to_do(tmp_path):
    for number, kind, text in (
        (errno.ENOSPC, StorageFullError, "disk is full"),
        (errno.EDQUOT, StorageFullError, "disk is full"),
        (errno.EROFS, ReadOnlyError, "may not write 'file'"),
        (errno.EACCES, ReadOnlyError, "may not write 'file'"),
    ):
        with pytest.raises(kind, match=text) as caught, storage_errors():
            raise OSError(number, "reason", str(tmp_path / "file"))
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(FileNotFoundError), storage_errors():
        (tmp_path / "none").read_bytes()


def test_temporary_files_of_a_killed_process_are_deleted_by_the_next(tmp_path):
    script = (
        "import os, signal, sys, tempfile; from lib.files import use_own_temporary_folder;"
        "use_own_temporary_folder(); tempfile.NamedTemporaryFile(delete=False);"
        "sys.argv[1] == 'killed' and os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(APP)}
    for ending, left in (("killed", 1), ("killed", 1), ("normal", 0)):
        subprocess.run([sys.executable, "-c", script, ending], env=environment, check=False)
        assert len(list(tmp_path.iterdir())) == left
