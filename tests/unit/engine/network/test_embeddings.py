import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.engine.embeddings import EmbeddingFolder
from lib.engine.network import EmbeddingCache, Features
from lib.engine.predictor import Predictor
from lib.engine.runtime import Runtime
from lib.errors import StorageFullError
from lib.prompts.types import FramePrompts


def features(nbytes: int) -> Features:
    return Features((torch.zeros(nbytes, dtype=torch.uint8),))


def test_the_one_used_least_recently_goes_first():
    cache = EmbeddingCache(budget=30)
    for key in "abc":
        cache.put(key, features(10))
    assert cache.get("a") is not None
    cache.put("d", features(10))
    assert cache.get("b") is None
    assert all(cache.get(key) is not None for key in "acd")
    assert cache.used == 30


def test_what_is_larger_than_the_budget_is_not_kept():
    cache = EmbeddingCache(budget=5)
    cache.put("a", features(6))
    assert cache.get("a") is None
    assert (cache.used, len(cache)) == (0, 0)


def test_a_key_that_is_put_twice_counts_once():
    cache = EmbeddingCache(budget=100)
    cache.put("a", features(10))
    cache.put("a", features(20))
    assert (cache.used, len(cache)) == (20, 1)


def test_threads_do_not_break_the_count():
    cache = EmbeddingCache(budget=50)

    def work(number: int) -> None:
        for round_ in range(300):
            cache.put((number, round_ % 7), features(10))
            cache.get((number, (round_ + 3) % 7))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.used == 10 * len(cache) <= 50


def maps(seed: int = 0) -> Features:
    made = torch.Generator().manual_seed(seed)
    levels = tuple(torch.randn((1, 4, side, side), generator=made) for side in (16, 8, 4))
    return Features(levels, torch.rand((1, 1, 16, 16), generator=made))


def test_an_embedding_comes_back_from_disk_in_half_precision(tmp_path):
    folder = EmbeddingFolder(tmp_path / "new", 1 << 20)
    assert folder.load(("v", 1)) is None
    folder.save(("v", 1), maps(), since=0)
    # Another process finds it; another key does not.
    again = EmbeddingFolder(tmp_path / "new", 1 << 20)
    found = again.load(("v", 1))
    for level, expected in zip(found.maps, maps().maps, strict=True):
        assert torch.equal(level, expected.half())
    assert torch.equal(found.guide, maps().guide)
    assert again.load(("w", 1)) is None
    # What half precision cannot hold is not saved.
    folder.save("large", Features((torch.full((1, 1, 2, 2), 1e6),)), since=0)
    assert folder.load("large") is None


def test_a_damaged_file_is_never_an_embedding(tmp_path, monkeypatch):
    folder = EmbeddingFolder(tmp_path, 1 << 20)
    folder.save("key", maps(), since=0)
    (path,) = tmp_path.iterdir()
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    expected = folder.load("key")
    damaged = [whole[:length] for length in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for place in rng.integers(0, len(whole), 200):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        found = folder.load("key")
        refused += found is None
        # A bit of the archive that means nothing, such as the time of a file, may differ.
        assert found is None or all(map(torch.equal, found.maps, expected.maps))
        assert path.exists() == (found is not None)
    assert refused > 150
    # A folder that cannot be written is read, and damage in it is no error.
    path.write_bytes(whole)

    def refuse(*_, **options):
        raise PermissionError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert folder.load("key") is not None
    path.write_bytes(whole[:100])
    assert folder.load("key") is None


def test_the_file_used_least_recently_goes_first_and_those_of_a_run_stay(tmp_path):
    folder = EmbeddingFolder(tmp_path, 1 << 20)
    folder.save(0, maps(), since=0)
    size = next(tmp_path.iterdir()).stat().st_size
    folder = EmbeddingFolder(tmp_path, int(3.5 * size))
    for key in (1, 2):
        folder.save(key, maps(), since=0)
    for age, key in ((30, 0), (20, 1), (10, 2)):
        os.utime(folder._path(key), (1000 - age, 1000 - age))
    assert folder.load(0) is not None
    folder.save(3, maps(), since=2000)
    assert [key for key in range(4) if folder._path(key).exists()] == [0, 2, 3]
    with pytest.raises(StorageFullError, match="embedding_disk_gb is full"):
        EmbeddingFolder(tmp_path, 3 * size).save(4, maps(), since=0)


def test_two_processes_stay_within_the_budget_together(tmp_path):
    first, second = (EmbeddingFolder(tmp_path, 20 * 5000) for _ in range(2))
    for key in range(40):
        (first, second)[key % 2].save(key, maps(key), since=float("inf"))
        assert sum(path.stat().st_size for path in tmp_path.glob("*.npz")) <= 1.02 * 20 * 5000


def test_prepared_frames_give_the_masks_without_the_encoder(tmp_path, tiny, frames, monkeypatch):
    def predictor(version="1", precision="bf16"):
        cache = EmbeddingCache(1 << 30, EmbeddingFolder(tmp_path, 1 << 30))
        return Predictor(tiny, Runtime(torch.device("cpu"), precision), cache, "tiny", version), cache

    click = FramePrompts(points=[[30, 90]], labels=[1])
    first, cache = predictor()
    assert [first.prepare(frames, index, 0) for index in (0, 1, 1)] == [True, True, False]
    expected = first.segment(frames, 1, click)
    assert (cache.encoded, cache.used > 0) == (2, True)
    later, cache = predictor()
    # bf16 has fewer bits than fp16: nothing is lost.
    assert (later.segment(frames, 1, click).mask == expected.mask).all()
    assert cache.encoded == 0
    for other in (predictor(version="2"), predictor(precision="fp32")):
        other[0].segment(frames, 1, click)
        assert other[1].encoded == 1
    frames.digest = "another image"
    later.segment(frames, 1, click)
    assert cache.encoded == 1
    later.prepare(frames, 0, 0)
    # The same weights, now with or without the guide that rendered prompts need.
    monkeypatch.setattr(tiny, "rendered_prompts", not tiny.rendered_prompts)
    assert later.prepare(frames, 0, 0)
