from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from lib.engine.network import network_image
from lib.prompts.types import FramePrompts
from lib.trainers.config import TrainOptions
from lib.trainers.frames import LabelledFrames
from lib.trainers.sampler import (
    CONTRAST,
    GAMMA,
    KINDS,
    Augmentation,
    PrefetchedBatches,
    Sampler,
    correct,
    draw_augmentation,
    draw_kind,
    draw_prompts,
    visible_objects,
)
from tests.unit.trainers.conftest import SIZE

FRAME = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_augmentations_change_frame_and_truth_alike():
    assert np.array_equal(Augmentation().frame(FRAME), FRAME)

    # Truth and frame are flipped alike.
    mask = FRAME[..., 0] > 100
    for flipped in ((False, True), (True, False), (True, True)):
        view = Augmentation(flipped)
        assert np.array_equal(view.mask(mask), view.frame(FRAME)[..., 0] > 100)
        assert np.array_equal(view.frame(view.frame(FRAME)), FRAME)

    # X is mirrored along the second axis.
    assert np.array_equal(Augmentation((False, True)).frame(FRAME)[:, 0], FRAME[:, -1])

    # Contrast and gamma keep the order of levels.
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for view in (Augmentation(contrast=1.25), Augmentation(gamma=0.7), Augmentation(contrast=0.8, gamma=1.4)):
        seen = view.frame(ramp)[0, :, 0].astype(int)
        assert (np.diff(seen) >= 0).all()
        assert not np.array_equal(seen, ramp[0, :, 0])

    # Gamma is the exponent of levels between 0 and 1.
    grey = np.full((2, 2, 3), 64, np.uint8)
    assert (Augmentation(gamma=0.5).frame(grey) == round(255 * (64 / 255) ** 0.5)).all()


def test_views_are_drawn_within_their_limits_and_all_four_mirror_images_come():
    rng = np.random.default_rng(1)
    views = [draw_augmentation(rng, few=False) for _ in range(200)]
    assert {view.flipped for view in views} == {(a, b) for a in (False, True) for b in (False, True)}
    assert all(
        1 / CONTRAST <= view.contrast <= CONTRAST and 1 / GAMMA <= view.gamma <= GAMMA for view in views
    )


def test_where_embeddings_are_kept_there_are_twelve_views():
    rng = np.random.default_rng(1)
    assert len({draw_augmentation(rng, few=True) for _ in range(200)}) == 12


OPTIONS = TrainOptions(objects_per_frame=2, empty_frames=0.0, clip_share=0.0, batch_size=2, seed=3)


@pytest.fixture
def sampler(images):
    return Sampler(images, SIZE, OPTIONS)


def test_a_batch_depends_on_seed_and_number_alone(images, sampler):
    again = Sampler(images, SIZE, OPTIONS).batch(5, 4)
    batch = sampler.batch(5, 4)
    for one, other in zip(batch.samples, again.samples, strict=True):
        assert (one.clip, one.kind.name) == (other.clip, other.kind.name)
        assert np.array_equal(one.prompts.points, other.prompts.points)
    places = [(clip.image.id, clip.indices) for clip in batch.clips]
    assert places != [(clip.image.id, clip.indices) for clip in sampler.batch(6, 4).clips]


def test_an_epoch_visits_every_labelled_frame_once(sampler):
    count = len(sampler.labelled)
    seen = [(clip.image.id, clip.indices) for n in range(count) for clip in sampler.batch(n, 1).clips]
    assert len(set(seen)) == count


def test_prompts_lie_in_the_object(sampler):
    for number in range(30):
        for sample in sampler.batch(number, 4).samples:
            mask = sample.masks[0]
            for (x, y), label in zip(sample.prompts.points.astype(int), sample.prompts.labels, strict=True):
                assert label == 1
                assert mask[y, x]
            if sample.prompts.box is not None:
                x0, y0, x1, y1 = sample.prompts.box
                inside = mask[max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1].sum()
                assert inside > 0.6 * mask.sum()


def test_all_kinds_of_prompts_come(sampler):
    kinds = {s.kind.name for number in range(60) for s in sampler.batch(number, 4).samples}
    assert kinds == {"1 click", "3 clicks", "5 clicks", "box", "box and click"}


def test_a_group_has_prompts_of_one_shape(sampler):
    for number in range(20):
        batch = sampler.batch(number, 6)
        for group in batch.groups():
            prompts = [batch.samples[place].prompts for place in group]
            assert len({(len(item.points), item.box is None) for item in prompts}) == 1


def test_some_objects_are_looked_for_where_they_are_not(images):
    sampler = Sampler(images, SIZE, OPTIONS.model_copy(update={"empty_frames": 0.5}))
    samples = [s for number in range(60) for s in sampler.batch(number, 4).samples]
    empty = [s for s in samples if not s.masks[0].any()]
    assert 0 < len(empty) < 0.5 * len(samples)
    assert all(s.prompts.has_positive for s in empty)


def test_a_clip_is_of_neighbouring_frames_both_ways(sampler):
    steps = set()
    for number in range(20):
        for clip in sampler.batch(number, 2, length=3).clips:
            steps |= set(np.diff(clip.indices).tolist())
        for sample in sampler.batch(number, 2, length=3).samples:
            assert len(sample.masks) == 3
            assert sample.masks[0].any()
    assert {-1, 1} <= steps <= {-1, 0, 1}


def test_parts_hold_the_whole_batch(sampler):
    batch = sampler.batch(1, 4)
    parts = batch.parts(3)
    assert sum(len(part.clips) for part in parts) == 4
    assert sum(len(part.samples) for part in parts) == len(batch.samples)
    for part in parts:
        for sample in part.samples:
            clip = part.clips[sample.clip]
            assert any(np.array_equal(sample.masks[0], clip.mask(0, value)) for value in clip.image.names)


def test_what_is_too_small_for_the_network_is_left_alone(images):
    image = images[0]
    large = LabelledFrames(**{**vars(image), "objects": ({1: 11, 2: 5000},), "height": 64, "width": 64})
    assert visible_objects(large, 0, 64) == [2]
    # In a frame of twice the side, the same object needs four times the pixels.
    wide = LabelledFrames(**{**vars(image), "objects": ({1: 47, 2: 48},), "height": 128, "width": 128})
    assert visible_objects(wide, 0, 64) == [2]


def test_the_truth_at_the_network_size_covers_the_same_share(sampler):
    batch = sampler.batch(0, 2)
    for sample, masks in zip(batch.samples, batch.masks, strict=True):
        assert masks.shape == (1, SIZE, SIZE)
        assert float(masks.float().mean()) == pytest.approx(sample.masks[0].mean(), rel=0.1)


def test_the_images_of_a_clip_lie_row_by_row(sampler):
    batch = sampler.batch(0, 2, length=3)
    assert batch.images.shape == (6, 3, SIZE, SIZE)
    expected = network_image(batch.clips[1].frame(2), SIZE)[0]
    assert torch.equal(batch.images[5], expected)


MASK = np.zeros((40, 60), bool)
MASK[5:15, 30:50] = True


def test_prompts_are_drawn_by_their_shares():
    rng = np.random.default_rng(0)
    drawn = [draw_kind(rng).name for _ in range(4000)]
    for kind in KINDS:
        assert abs(drawn.count(kind.name) / 4000 - kind.share) < 0.03

    # Clicks are drawn over the whole object.
    rng = np.random.default_rng(0)
    points = np.concatenate([draw_prompts(KINDS[1], MASK, rng).points for _ in range(1000)])
    assert MASK[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    assert len(np.unique(points, axis=0)) == MASK.sum()

    # An empty mask is prompted anywhere on the frame.
    rng = np.random.default_rng(0)
    for kind in KINDS:
        prompts = draw_prompts(kind, np.zeros((30, 50), bool), rng)
        assert prompts.has_positive
        assert (len(prompts.points), prompts.box is not None) == (kind.clicks, kind.box)
        assert (prompts.points < [50, 30]).all()


def test_a_correction_is_added_to_what_was_sent_before():
    first = FramePrompts(points=[[35, 8]], labels=[1])
    found = MASK.copy()
    found[20:38, 2:20] = True
    mended = correct(first, MASK, found, np.random.default_rng(0))
    assert mended.points[0].tolist() == [35, 8]
    x, y = mended.points[1].astype(int)
    assert mended.labels.tolist() == [1, 0]
    assert found[y, x]
    assert not MASK[y, x]


def test_a_missed_part_is_clicked_positive_and_a_right_answer_somewhere_inside():
    first = FramePrompts(points=[[35, 8]], labels=[1])
    rng = np.random.default_rng(0)
    assert correct(first, MASK, np.zeros_like(MASK), rng).labels.tolist() == [1, 1]
    right = correct(first, MASK, MASK, rng)
    x, y = right.points[1].astype(int)
    assert MASK[y, x]
    assert right.labels.tolist() == [1, 1]


def test_the_next_one_is_made_in_the_background(sampler, monkeypatch):
    made = []
    original = sampler.batch

    def batch(number, *others):
        made.append((number, threading.current_thread().name))
        return original(number, *others)

    monkeypatch.setattr(sampler, "batch", batch)
    batches = PrefetchedBatches(sampler, with_images=True)
    batches.next(0)
    batches.next(1)
    assert [number for number, _ in made][:2] == [0, 1]
    assert made[1][1].startswith("batches")


def test_out_of_order_they_are_the_same(sampler):
    in_order = PrefetchedBatches(sampler, with_images=True)
    wanted = [in_order.next(number) for number in range(6)]
    alone = PrefetchedBatches(sampler, with_images=False).next(5)
    assert [clip.indices for clip in alone.clips] == [clip.indices for clip in wanted[5].clips]
    assert np.array_equal(alone.masks, wanted[5].masks)


def test_clips_come_as_often_as_asked_for(images):
    for preset, share, clips in (("video", 0.0, 12), ("paper", 0.0, 0), ("paper", 1.0, 12)):
        options = TrainOptions(preset=preset, clip_share=share, batch_size=4, clip_frames=2)
        drawn = [Sampler(images, SIZE, options).draw(number) for number in range(12)]
        assert sum(batch.length > 1 for batch in drawn) == clips
        if preset == "paper" and clips:
            assert all(len(batch.clips) == 2 for batch in drawn)
