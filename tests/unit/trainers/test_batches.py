import threading

import numpy as np
import pytest

from lib.trainers.batches import Batches
from lib.trainers.options import TrainOptions
from lib.trainers.sampler import Sampler
from tests.unit.trainers.conftest import SIZE


@pytest.fixture
def sampler(images):
    return Sampler(images, SIZE, 2, 0.0, False, 0)


def test_the_next_one_is_made_in_the_background(sampler, monkeypatch):
    made = []
    original = sampler.batch

    def batch(number, *others):
        made.append((number, threading.current_thread().name))
        return original(number, *others)

    monkeypatch.setattr(sampler, "batch", batch)
    batches = Batches(sampler, TrainOptions(batch_size=2, clip_share=0.0))
    batches.next(0)
    batches.next(1)
    assert [number for number, _ in made][:2] == [0, 1]
    assert made[1][1].startswith("batches")


def test_out_of_order_they_are_the_same(sampler):
    options = TrainOptions(batch_size=2)
    in_order = Batches(sampler, options)
    wanted = [in_order.next(number) for number in range(6)]
    alone = Batches(sampler, options).next(5)
    assert [row.indices for row in alone.rows] == [row.indices for row in wanted[5].rows]
    assert np.array_equal(alone.masks, wanted[5].masks)


@pytest.mark.parametrize(
    ("preset", "share", "clips"), [("video", 0.0, 12), ("paper", 0.0, 0), ("paper", 1.0, 12)]
)
def test_clips_come_as_often_as_asked_for(sampler, preset, share, clips):
    batches = Batches(sampler, TrainOptions(preset=preset, clip_share=share, batch_size=4, clip_frames=2))
    drawn = [batches.next(number) for number in range(12)]
    assert sum(batch.is_of_clips for batch in drawn) == clips
    if preset == "paper" and clips:
        assert all(len(batch.rows) == 2 for batch in drawn)
