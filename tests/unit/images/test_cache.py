"""One reading per file, within the budget, and never an old version."""

import os
import threading
import time

import nibabel as nib
import numpy as np
import pytest

from lib.errors import ImageError, ImageNotFoundError, ImageTooLargeError
from lib.images import cache as cache_module
from lib.images.cache import ImageCache

BYTES = 10 * 10 * 10 * 2


@pytest.fixture
def save(tmp_path):
    def write(name, value=0):
        nib.save(nib.Nifti1Image(np.full((10, 10, 10), value, np.int16), np.eye(4)), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def readings(monkeypatch):
    """Paths that were read from disk."""
    seen = []
    read = cache_module.read_image

    def counted(path, max_voxels):
        seen.append(path)
        return read(path, max_voxels)

    monkeypatch.setattr(cache_module, "read_image", counted)
    return seen


def test_a_second_request_reads_nothing(save, readings):
    cache = ImageCache(10**6, 10**6)
    path = save("a.nii")
    assert cache.get(path) is cache.get(str(path))
    assert len(readings) == 1
    assert cache.nbytes == BYTES


def test_a_file_that_changed_is_read_again_and_the_old_one_is_gone(save, readings):
    cache = ImageCache(10**6, 10**6)
    path = save("a.nii")
    old = cache.get(path)
    save("a.nii", value=5)
    os.utime(path, ns=(1, 10**18))
    new = cache.get(path)
    assert (old.array[0, 0, 0], new.array[0, 0, 0]) == (0, 5)
    assert cache.nbytes == BYTES


def test_a_file_replaced_by_one_of_its_size_and_time_is_read_again(save, readings):
    cache, path = ImageCache(10 * BYTES, 10**6), save("a.nii", 1)
    assert (cache.get(path).array == 1).all()
    stat, other = path.stat(), save("b.nii", 2)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert (cache.get(path).array == 2).all()
    # Written in place, and its time set back, as rsync --inplace does.
    content = save("c.nii", 3).read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (cache.get(path).array == 3).all()
    assert len(readings) == 3


def test_a_slice_added_to_a_series_is_seen(tmp_path, ct_slice):
    cache = ImageCache(10**6, 10**6)
    ct_slice(tmp_path / "a.dcm", np.zeros((3, 4)), 0)
    assert cache.get(tmp_path).shape == (4, 3, 1)
    ct_slice(tmp_path / "b.dcm", np.zeros((3, 4)), 2.5)
    assert cache.get(tmp_path).shape == (4, 3, 2)


def test_a_slice_written_again_in_its_place_is_seen(tmp_path, ct_slice):
    cache = ImageCache(10**6, 10**6)
    path = ct_slice(tmp_path / "a.dcm", np.full((3, 4), 1024), 0)
    assert cache.get(tmp_path).array.max() == 0
    with path.open("r+b") as file:
        file.seek(-24, os.SEEK_END)
        file.write(np.full((3, 4), 1074, "<u2").tobytes())
    os.utime(path, ns=(1, time.time_ns() + 10**9))
    assert cache.get(tmp_path).array.max() == 50


def test_the_least_recently_used_goes_first(save, readings, monkeypatch):
    a, b, c = save("a.nii"), save("b.nii"), save("c.nii")
    for budget, most in ((2 * BYTES, cache_module.MOST_IMAGES), (9 * BYTES, 2)):
        monkeypatch.setattr(cache_module, "MOST_IMAGES", most)
        cache = ImageCache(budget, 10**6)
        for path in (a, b, a, c):
            cache.get(path)
        assert cache.nbytes == 2 * BYTES
        readings.clear()
        cache.get(a)
        cache.get(c)
        assert readings == []
        cache.get(b)
        assert readings == [b]


@pytest.mark.parametrize("budget", [0, BYTES - 1])
def test_what_does_not_fit_is_read_each_time(save, readings, budget):
    cache = ImageCache(budget, 10**6)
    path = save("a.nii")
    cache.get(path)
    cache.get(path)
    assert len(readings) == 2
    assert cache.nbytes == 0


def test_threads_wait_for_one_reading(save, monkeypatch):
    path, count, read = save("a.nii"), [], cache_module.read_image

    def slow(*args):
        count.append(1)
        time.sleep(0.2)
        return read(*args)

    monkeypatch.setattr(cache_module, "read_image", slow)
    cache, found = ImageCache(10**6, 10**6), []
    threads = [threading.Thread(target=lambda: found.append(cache.get(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1
    assert len(found) == 8
    assert len({id(image) for image in found}) == 1


def test_a_slow_reading_does_not_hold_up_another_image(save, monkeypatch):
    slow_path, fast_path, read = save("slow.nii"), save("fast.nii"), cache_module.read_image
    started, release = threading.Event(), threading.Event()

    def blocking(path, max_voxels):
        if path == slow_path:
            started.set()
            assert release.wait(10)
        return read(path, max_voxels)

    monkeypatch.setattr(cache_module, "read_image", blocking)
    cache = ImageCache(10**6, 10**6)
    thread = threading.Thread(target=cache.get, args=(slow_path,))
    thread.start()
    assert started.wait(10)
    assert cache.get(fast_path).shape == (10, 10, 10)
    release.set()
    thread.join()


def test_an_error_reaches_everyone_and_is_not_kept(save, monkeypatch):
    path, read = save("a.nii"), cache_module.read_image

    def failing(*_):
        time.sleep(0.1)
        raise ImageError("broken")

    monkeypatch.setattr(cache_module, "read_image", failing)
    cache, errors = ImageCache(10**6, 10**6), []

    def ask():
        try:
            cache.get(path)
        except ImageError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["broken"] * 4
    monkeypatch.setattr(cache_module, "read_image", read)
    assert cache.get(path).shape == (10, 10, 10)


@pytest.mark.parametrize("path", ["", "absent.nii.gz"])
def test_a_missing_file_is_not_found(path):
    with pytest.raises(ImageNotFoundError):
        ImageCache(10**6, 10**6).get(path)


def test_the_limit_of_voxels_is_passed_on(save):
    with pytest.raises(ImageTooLargeError):
        ImageCache(10**6, 999).get(save("a.nii"))


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_again(save, tmp_path):
    cache = ImageCache(10 * BYTES, 10**9)
    path = save("a.nii", 1)
    assert cache.get(path).array.max() == 1
    times = path.stat()
    # As rsync -t, cp -p and git-annex do.
    other = save("b.nii", 2)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert cache.get(path).array.max() == 2
    content = save("c.nii", 3).read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.get(path).array.max() == 3
