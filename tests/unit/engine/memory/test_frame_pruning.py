"""Frames that say nothing new of an object are told before their memory is encoded."""

import pytest
import torch

from lib.engine.frame_pruning import FramePruning, object_places, redundancy, unit_channels


def test_redundancy_is_the_sum_of_cosines_over_the_places():
    newest = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])  # (1, 0) at the first place, (0, 2) at the second
    before = torch.tensor([[[3.0, 1.0]], [[0.0, 1.0]]])  # (3, 0) and (1, 1): cosines 1 and 1 / sqrt(2)
    before, newest = unit_channels(before), unit_channels(newest)
    assert redundancy(before, newest, torch.ones(1, 2)) == pytest.approx(1 + 0.5**0.5)
    assert redundancy(-before, newest, torch.ones(1, 2)) == pytest.approx(-1 - 0.5**0.5)
    places = torch.tensor([[0.25, 0.75]])
    assert redundancy(before, newest, places) == pytest.approx(0.25 + 0.75 * 0.5**0.5)
    assert unit_channels(torch.zeros(2, 1, 1)).tolist() == [[[0.0]], [[0.0]]]


@pytest.mark.parametrize(
    ("held", "newest", "expected"),
    [
        ([0.0, 1.0], [0.5, 0.0], [1 / 3, 2 / 3]),
        ([1.0, 0.0], [0.5, 0.0], [1, 0]),
        ([0, 0], [0, 0], [0.5, 0.5]),
    ],
)
def test_places_count_as_far_as_one_of_two_frames_holds_the_object(held, newest, expected):
    places = object_places(torch.tensor([held]), torch.tensor([newest]))
    assert places.flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_an_object_that_looks_the_same_is_spared_until_it_changes():
    pruning = FramePruning()
    features = torch.zeros(2, 4, 4)
    features[0] = 1
    here = torch.full((1, 4, 4), -1.0)
    here[:, :2] = 1
    assert not pruning.spares(features, here)  # nothing was encoded before
    assert pruning.spares(features, here)
    changed = features.clone()
    changed[1, 3] = 9  # of the background
    assert pruning.spares(changed, here)
    changed[1, 0] = 1  # half of the object's places: (1 + 1 / sqrt(2)) / 2 = 0.85
    assert not pruning.spares(changed, here)
    assert pruning.spares(changed, here)
    assert not pruning.spares(changed, -here.abs())  # without the object


def test_the_background_does_not_decide():
    """An object of one column, with features of its own, on a background that never changes."""
    pruning = FramePruning()
    for column, spared in ((0, False), (0, True), (1, False)):
        features = torch.zeros(2, 4, 4)
        features[0], features[0, :, column], features[1, :, column] = 1, 0, 1
        logits = torch.full((1, 4, 4), -1.0)
        logits[..., column] = 1
        assert pruning.spares(features, logits) is spared
