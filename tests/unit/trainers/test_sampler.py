import numpy as np
import pytest
import torch

from lib.engine.preprocessing import network_image
from lib.trainers.frames import LabelledFrames
from lib.trainers.sampler import Sampler, visible_objects
from tests.unit.trainers.conftest import SIZE


@pytest.fixture
def sampler(images):
    return Sampler(images, SIZE, objects_per_frame=2, empty_share=0.0, few_views=False, seed=3)


def test_a_batch_depends_on_seed_and_number_alone(images, sampler):
    again = Sampler(images, SIZE, 2, 0.0, False, 3).batch(5, 4)
    batch = sampler.batch(5, 4)
    for one, other in zip(batch.samples, again.samples, strict=True):
        assert (one.row, one.kind.name) == (other.row, other.kind.name)
        assert np.array_equal(one.prompts.points, other.prompts.points)
    places = [(row.image.id, row.indices) for row in batch.rows]
    assert places != [(row.image.id, row.indices) for row in sampler.batch(6, 4).rows]


def test_an_epoch_visits_every_labelled_frame_once(sampler):
    count = len(sampler.labelled)
    seen = [(row.image.id, row.indices) for n in range(count) for row in sampler.batch(n, 1).rows]
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
    sampler = Sampler(images, SIZE, 2, 0.5, False, 0)
    samples = [s for number in range(60) for s in sampler.batch(number, 4).samples]
    empty = [s for s in samples if not s.masks[0].any()]
    assert 0 < len(empty) < 0.5 * len(samples)
    assert all(s.prompts.has_positive for s in empty)


def test_a_clip_is_of_neighbouring_frames_both_ways(sampler):
    steps = set()
    for number in range(20):
        for row in sampler.batch(number, 2, frames_per_row=3).rows:
            steps |= set(np.diff(row.indices).tolist())
        for sample in sampler.batch(number, 2, frames_per_row=3).samples:
            assert len(sample.masks) == 3
            assert sample.masks[0].any()
    assert {-1, 1} <= steps <= {-1, 0, 1}


def test_parts_hold_the_whole_batch(sampler):
    batch = sampler.batch(1, 4)
    parts = batch.parts(3)
    assert sum(len(part.rows) for part in parts) == 4
    assert sum(len(part.samples) for part in parts) == len(batch.samples)
    for part in parts:
        for sample in part.samples:
            row = part.rows[sample.row]
            assert any(np.array_equal(sample.masks[0], row.mask(0, value)) for value in row.image.names)


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
    batch = sampler.batch(0, 2, frames_per_row=3)
    assert batch.images.shape == (6, 3, SIZE, SIZE)
    expected = network_image(batch.rows[1].frame(2), SIZE)[0]
    assert torch.equal(batch.images[5], expected)
