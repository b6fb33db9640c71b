from __future__ import annotations

import threading
import time

from lib.engine.runtime import FifoLock

LIMIT_S = 10


def _until(condition):
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_one_thread_at_a_time():
    lock, inside, most = FifoLock(), [], []

    def work():
        for _ in range(200):
            with lock:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(most) == 800
    assert set(most) == {1}


def test_who_waits_longest_is_next_and_the_one_who_lets_go_queues_again():
    lock, order, waiting = FifoLock(), [], []

    def wait(name):
        waiting.append(name)
        with lock:
            order.append(name)

    threads = []
    with lock:
        for name in ("first", "second", "third"):
            thread = threading.Thread(target=wait, args=(name,))
            thread.start()
            threads.append(thread)
            _until(lambda: len(lock._waiting) == len(threads))
    with lock:
        order.append("again")
    for thread in threads:
        thread.join(LIMIT_S)
    assert order == ["first", "second", "third", "again"]


def test_an_error_inside_lets_it_go():
    lock = FifoLock()
    try:
        with lock:
            raise ValueError
    except ValueError:
        pass
    with lock:
        pass
