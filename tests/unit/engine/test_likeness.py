import numpy as np
import pytest
import torch

from lib.engine.likeness import Likeness
from lib.engine.network import Features


def features(mask, noise=0.05, seed=0):
    """Three levels whose channels tell a mask (64, 64) from its background."""
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for side in (64, 32, 16):
        inside = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None, None].float(), side)
        channels = torch.cat([inside, 1 - inside, torch.ones_like(inside)], 1)
        maps.append(channels + noise * torch.randn(channels.shape, generator=generator))
    return Features(tuple(maps))


def square(top, left, side=20):
    mask = np.zeros((64, 64), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_label_is_found_by_its_features_wherever_it_lies():
    likeness = Likeness()
    likeness.add(0, features(square(4, 4)), square(4, 4))
    likeness.add(1, features(square(30, 10), seed=1), square(30, 10))
    truth = square(38, 40)
    logits = likeness(features(truth, seed=2))
    assert logits.shape == (1, 1, 64, 64)
    found = (logits[0, 0] > 0).numpy()
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.85


def test_a_frame_is_learned_once_and_what_is_alike_may_count_less():
    full, half = Likeness(), Likeness(0.5)
    for likeness in (full, half):
        likeness.add(0, features(square(30, 10), seed=1), square(30, 10))
        likeness.add(0, features(square(4, 4)), square(4, 4))
        assert len(likeness) == 1
    other = full.copy()
    other.add(1, features(square(38, 40), seed=2), square(38, 40))
    asked = features(square(20, 20), seed=3)
    logits = full(asked)
    assert (len(full), len(other)) == (1, 2)
    assert torch.equal(half(asked), torch.where(logits > 0, logits / 2, logits))
    assert not torch.equal(other(asked), logits)
    full.add(0, features(square(4, 4)), np.zeros((64, 64), bool))
    assert not full


def test_without_a_labelled_frame_there_is_nothing_to_be_like():
    with pytest.raises(ValueError, match="no labelled frame"):
        Likeness()(features(square(4, 4)))
