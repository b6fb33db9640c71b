"""Components and holes, against scipy's own where it has one."""

import numpy as np
import pytest
from scipy import ndimage

from lib.transforms.components import fill_holes, largest_component


def two_blobs():
    mask = np.zeros((20, 30), np.uint8)
    mask[2:8, 2:8] = 1
    mask[10:14, 20:24] = 1
    return mask


def test_the_largest_stays():
    result = largest_component(two_blobs())
    assert result.sum() == 36
    assert result[5, 5] == 1
    assert result[12, 22] == 0


def test_a_seed_says_which_one():
    result = largest_component(two_blobs(), seeds=[(12, 22)])
    assert result.sum() == 16
    assert result[12, 22] == 1


def test_seeds_on_both_keep_both():
    assert largest_component(two_blobs(), seeds=[(12, 22), (5, 5)]).sum() == 52


@pytest.mark.parametrize("seed", [(0, 0), (19, 29), (500, 2), (-3, 4)])
def test_a_seed_beside_the_mask_counts_for_nothing(seed):
    assert largest_component(two_blobs(), seeds=[seed])[5, 5] == 1


def test_voxels_that_touch_by_a_corner_are_one():
    diagonal = np.eye(6, dtype=np.uint8)
    assert largest_component(diagonal).sum() == 6


def test_values_type_and_argument_are_kept():
    mask = two_blobs() * np.uint8(4)
    before = mask.copy()
    result = largest_component(mask)
    assert np.unique(result).tolist() == [0, 4]
    assert result.dtype == np.uint8
    assert np.array_equal(mask, before)
    assert largest_component(mask > 0).dtype == bool


def test_in_three_dimensions_the_larger_volume_stays():
    mask = np.zeros((10, 10, 10), bool)
    mask[0, :5, :5] = True
    mask[5:9, 5:9, 5:9] = True
    result = largest_component(mask)
    assert result.sum() == 64
    assert not result[0].any()


@pytest.mark.parametrize("function", [largest_component, fill_holes])
def test_an_empty_mask_stays_empty(function):
    assert not function(np.zeros((4, 5, 6), np.uint8)).any()


def test_holes_are_filled_as_scipy_does():
    for shape, threshold in [((60, 50), 0.5), ((24, 20, 22), 0.1)]:
        for seed in range(5):
            noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
            mask = (np.abs(noise) > threshold * noise.std()).astype(np.uint8)
            filled = fill_holes(mask)
            assert np.array_equal(filled, ndimage.binary_fill_holes(mask))
            assert filled.sum() > mask.sum()


def test_a_ring_is_filled_and_an_open_one_is_not():
    ring = np.zeros((9, 9), bool)
    ring[2:7, 2:7] = True
    ring[3:6, 3:6] = False
    assert fill_holes(ring).sum() == 25
    ring[2, 4] = False
    assert fill_holes(ring).sum() == ring.sum()


def test_a_tube_has_no_hole_in_three_dimensions():
    tube = np.zeros((9, 9, 5), bool)
    tube[2:7, 2:7] = True
    tube[3:6, 3:6] = False
    assert np.array_equal(fill_holes(tube), tube)


def test_filling_does_not_change_its_argument():
    ring = np.ones((5, 5), np.uint8)
    ring[2, 2] = 0
    fill_holes(ring)
    assert ring[2, 2] == 0
