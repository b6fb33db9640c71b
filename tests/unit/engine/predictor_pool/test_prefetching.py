"""Neighbours are encoded while nobody waits, and a request stops that."""

import threading
import time

import pytest
import torch

from lib.engine.frames import CroppedFrames
from lib.engine.network import EmbeddingCache
from lib.engine.predictor import Predictor
from lib.engine.predictor_pool import Prefetcher
from lib.engine.runtime import InteractivePriority, Runtime
from lib.errors import ImageError
from lib.transforms.frames import Crop

LIMIT_S = 60


@pytest.fixture
def priority(tmp_path):
    return InteractivePriority(tmp_path)


@pytest.fixture
def start(predictor, priority):
    """Starts a prefetcher of so many neighbours; all are stopped at the end."""
    started = []

    def prefetcher(neighbours, embeddings=predictor._embeddings):
        started.append(Prefetcher(neighbours, embeddings, priority))
        return started[-1]

    yield prefetcher
    for one in started:
        one.stop()
        assert one._thread is None or not one._thread.is_alive()


def wait_until(condition):
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def kept(predictor, frames):
    return [index for index in range(len(frames)) if predictor.kept(frames, index) is not None]


def test_neighbours_come_nearest_first_in_the_direction_of_travel(start, predictor, frames):
    prefetcher = start(3)
    for index, expected in ((2, [2, 3, 1, 4]), (3, [5])):  # 4 is there; 2 behind counts as 2.5 ahead
        predictor.features(frames, index)
        prefetcher.looked_at("somebody", predictor, frames, index)
        wait_until(lambda: not prefetcher.pending)
        assert frames.reads == expected
        frames.reads.clear()
    assert (prefetcher.encoded, predictor._embeddings.encoded) == (4, 5)
    # Where a small object was looked at in a window, that of the neighbours is encoded too.
    crop = Crop(8, 8, 72, 72)
    prefetcher.looked_at("somebody", predictor, frames, 4, crop)
    wait_until(lambda: not prefetcher.pending)
    assert kept(predictor, CroppedFrames(frames, crop)) == [2, 3, 5]


def test_nothing_begins_while_a_request_runs(start, predictor, priority, frames):
    prefetcher = start(2)
    predictor.features(frames, 2)
    with priority.interactive():
        prefetcher.looked_at("somebody", predictor, frames, 2)
        time.sleep(0.2)
        assert kept(predictor, frames) == [2]
    wait_until(lambda: kept(predictor, frames) == [1, 2, 3])


def test_a_request_stops_the_encoding_of_another_slice_between_two_layers(start, predictor, priority, frames):
    block = predictor._network.image_encoder.trunk.blocks[2]
    inside, go_on, finished = threading.Event(), threading.Event(), []

    def pause(*_):
        inside.set()
        assert go_on.wait(LIMIT_S)

    predictor.features(frames, 2)
    hooks = [
        block.attn.register_forward_hook(pause),
        block.mlp.layers[0].register_forward_hook(lambda *_: finished.append(1)),
    ]
    prefetcher = start(1)
    prefetcher.looked_at("somebody", predictor, frames, 2)
    assert inside.wait(LIMIT_S)
    prefetcher.give_way(frames, {3})  # needs what is under way
    assert not prefetcher._current[1].is_requested
    prefetcher.give_way(frames, {0, 5})
    with priority.interactive():
        go_on.set()
        wait_until(lambda: prefetcher.dropped == 1)
        assert finished == []  # not even the next layer of the same block
    hooks[0].remove()
    # Nobody has wished for anything else: it is encoded after the request.
    wait_until(lambda: kept(predictor, frames) == [2, 3])
    hooks[1].remove()


def test_a_gpu_encodes_several_at_once_with_the_same_embeddings(start, tiny, predictor, frames, monkeypatch):
    runtime = Runtime(torch.device("cpu"), "fp32")
    together = Predictor(tiny, runtime, EmbeddingCache(1 << 30), "tiny", "1")
    monkeypatch.setattr(Predictor, "at_once", 3)
    batches = []
    encode = together._network.encode
    monkeypatch.setattr(
        together._network, "encode", lambda images: batches.append(len(images)) or encode(images)
    )
    together.features(frames, 2)
    prefetcher = start(5, together._embeddings)
    crop = Crop(8, 8, 72, 72)
    prefetcher.looked_at("somebody", together, frames, 2, crop)
    wait_until(lambda: not prefetcher.pending)
    assert batches == [1, 3, 3, 3, 1]
    assert (prefetcher.encoded, kept(together, frames)) == (10, [0, 1, 2, 3, 4, 5])
    for look in (frames, CroppedFrames(frames, crop)):
        for index in (0, 1, 3, 4, 5):
            alone, batched = predictor.features(look, index), together.kept(look, index)
            for one, other in zip(alone.maps, batched.maps, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_batch_goes_on_for_one_of_its_slices_and_is_dropped_for_another(
    start, predictor, frames, monkeypatch
):
    monkeypatch.setattr(Predictor, "at_once", 2)
    inside, go_on = threading.Event(), threading.Event()

    def pause(*_):
        inside.set()
        assert go_on.wait(LIMIT_S)

    predictor.features(frames, 2)
    hook = predictor._network.image_encoder.trunk.blocks[0].register_forward_hook(pause)
    prefetcher = start(2)
    prefetcher.looked_at("somebody", predictor, frames, 2)
    assert inside.wait(LIMIT_S)
    prefetcher.give_way(frames, {1})  # the second of the two
    assert not prefetcher._current[1].is_requested
    prefetcher.give_way(frames, {5})
    hook.remove()
    go_on.set()
    # Both are wished for again.
    wait_until(lambda: kept(predictor, frames) == [1, 2, 3])
    assert prefetcher.dropped == 1


def test_two_viewers_share_half_of_the_cache(start, tiny, frames):
    runtime = Runtime(torch.device("cpu"), "fp32")
    nbytes = Predictor(tiny, runtime, EmbeddingCache(1 << 30), "", "").features(frames, 0).nbytes
    embeddings = EmbeddingCache(4 * nbytes)
    predictor = Predictor(tiny, runtime, embeddings, "tiny", "1")
    prefetcher = start(5, embeddings)
    for viewer, index in (("one", 0), ("two", 5), ("one", 0), ("two", 5)):
        predictor.features(frames, index)
        prefetcher.looked_at(viewer, predictor, frames, index)
        wait_until(lambda: not prefetcher.pending)
    assert kept(predictor, frames) == [0, 1, 4, 5]
    assert embeddings.used <= embeddings.budget
    # A cache without room for one more is left alone.
    small = EmbeddingCache(nbytes)
    lonely = Predictor(tiny, runtime, small, "tiny", "1")
    lonely.features(frames, 0)
    start(5, small).looked_at("one", lonely, frames, 0)
    assert small.encoded == 1


def test_an_image_is_opened_beforehand_and_one_that_cannot_be_does_no_harm(start, predictor, frames, caplog):
    prefetcher = start(1)

    for error in (ImageError("the file is damaged"), KeyError("unknown to the library")):

        def damaged(error=error):
            raise error

        prefetcher.opened("somebody", damaged)
        wait_until(lambda: not prefetcher.pending)
        assert str(error) in caplog.text
    prefetcher.opened("somebody", lambda: (predictor, frames, 3))
    wait_until(lambda: kept(predictor, frames) == [3])


def test_nothing_runs_after_the_end_or_where_it_is_switched_off(start, predictor, frames):
    predictor.features(frames, 2)
    ended, off = start(4), start(0)
    ended.stop()
    for prefetcher in (ended, off):
        prefetcher.looked_at("somebody", predictor, frames, 2)
        prefetcher.opened("somebody", lambda: (predictor, frames, 3))
        assert prefetcher._thread is None
    assert kept(predictor, frames) == [2]
