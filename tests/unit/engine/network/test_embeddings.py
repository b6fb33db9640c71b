import threading

import torch

from lib.engine.network import EmbeddingCache, Features


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
