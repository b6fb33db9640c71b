"""Synthetic scenes: shapes, ranges, and the same again from the same seed."""

import pytest
import torch

from pretraining.scenes import choose_targets
from pretraining.synthetic import STYLES, synthetic_scenes


@pytest.mark.parametrize("style", list(STYLES))
def test_every_style_gives_pictures_and_objects(gen, style):
    scenes = synthetic_scenes(gen, 4, 64, 1.0, frames=3, groups=1, style=style)
    assert scenes.images.shape == (4, 3, 3, 64, 64)
    assert scenes.labels.shape == (4, 3, 64, 64)
    assert float(scenes.images.min()) >= 0
    assert float(scenes.images.max()) <= 1
    assert bool(torch.isfinite(scenes.images).all())
    masks, valid = choose_targets(scenes, 3, gen)
    assert masks.shape == (4, 3, 3, 64, 64)
    assert bool(masks[valid][:, 0].flatten(1).any(1).all())


def test_the_same_seed_gives_the_same_scenes():
    one, two = (synthetic_scenes(torch.Generator().manual_seed(3), 4, 64, 0.7) for _ in range(2))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)


def test_the_easiest_scene_is_one_object_on_plain_ground(gen):
    scenes = synthetic_scenes(gen, 6, 64, 0.0)
    assert set(scenes.labels.unique().tolist()) <= {0, 1}


def test_some_objects_of_a_clip_vanish(gen):
    scenes = synthetic_scenes(gen, 8, 64, 1.0, frames=4, style="ct")
    first, last = (set(scenes.labels[:, t].unique().tolist()) for t in (0, 3))
    counts = [(scenes.labels[:, t] > 2).sum() for t in (0, 3)]
    assert first >= last
    assert counts[0] > counts[1]


def test_chambers_look_alike_and_have_an_opening_between_them(gen):
    scenes = synthetic_scenes(gen, 8, 96, 1.0, frames=6, groups=1, style="chambers")
    ventricle, atrium = scenes.labels == 2, scenes.labels == 3
    assert bool(ventricle.flatten(2).any(2).any(1).all())
    touching = (ventricle[..., 1:] & atrium[..., :-1]) | (ventricle[..., :-1] & atrium[..., 1:])
    touching = touching.flatten(2).sum(2) > 0
    assert bool(touching.any())
    assert not bool(touching.all())
