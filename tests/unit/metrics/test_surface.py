"""Distances of surfaces, by hand and against DeepMind's and MONAI's programs."""

import math
import time

import numpy as np
import pytest
import surface_distance
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from lib.metrics.surface import hausdorff95, normalized_surface_dice
from tests.unit.metrics.conftest import cube, pair

SPACINGS = {2: [(1.0, 1.0), (0.6, 1.7)], 3: [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0)]}
SHAPES = {2: (50, 60), 3: (24, 30, 20)}
CASES = [(axes, spacing, seed) for axes in (2, 3) for spacing in SPACINGS[axes] for seed in range(3)]
# Ample for a busy machine, and less than distance transforms of the whole volume take.
TIME_LIMIT_S = 60


def onehot(mask):
    """Background and object, as MONAI takes them."""
    return torch.from_numpy(np.stack([~mask, mask]))[None]


def test_a_square_moved_by_two_pixels():
    first, second = cube((20, 20), (2, 2), (12, 12)), cube((20, 20), (4, 2), (14, 12))
    total = 36 + 4 * math.sqrt(0.5)
    # Within 1 mm: of the sides along the move 9 elements each, and at the end that lies between the other's
    # sides two corners (of half a diagonal) and the element beside each. The rest is 2 mm away.
    near = 2 * 9 + 2 * math.sqrt(0.5) + 2
    assert normalized_surface_dice(first, second, (1, 1), 1) == pytest.approx(near / total)
    assert normalized_surface_dice(first, second, (1, 1), 2) == 1.0
    assert hausdorff95(first, second, (1, 1)) == 2.0


def test_a_moved_cube_is_as_far_away_as_the_spacing_says():
    spacing = (0.5, 1.0, 2.5)
    first = cube((24, 24, 24), (5, 5, 5), (15, 15, 15))
    for axis, step in enumerate(spacing):
        second, distance = np.roll(first, 3, axis=axis), 3 * step
        assert hausdorff95(first, second, spacing) == pytest.approx(distance)
        assert normalized_surface_dice(first, second, spacing, distance) == 1.0
        assert normalized_surface_dice(first, second, spacing, 0.9 * distance) < 1.0


@pytest.mark.parametrize(("axes", "spacing", "seed"), CASES)
def test_surface_dice_as_deepmind_has_it(axes, spacing, seed):
    first, second = pair(seed, SHAPES[axes])
    distances = surface_distance.compute_surface_distances(first, second, spacing)
    for tolerance in (0.0, 1.0, 2.0):
        expected = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)
        assert 0.05 < expected < 1
        assert normalized_surface_dice(first, second, spacing, tolerance) == pytest.approx(expected)


@pytest.mark.parametrize(("axes", "spacing", "seed"), CASES)
def test_hausdorff_as_deepmind_has_it(axes, spacing, seed):
    first, second = pair(seed, SHAPES[axes])
    distances = surface_distance.compute_surface_distances(first, second, spacing)
    expected = surface_distance.compute_robust_hausdorff(distances, 95)
    assert expected > 1
    assert hausdorff95(first, second, spacing) == pytest.approx(expected)


@pytest.mark.parametrize(("axes", "spacing", "seed"), CASES)
def test_surface_dice_as_monai_has_it_with_subvoxels(axes, spacing, seed):
    first, second = pair(seed, SHAPES[axes])
    # MONAI, unlike here, has no surface where an object touches the edge of the array.
    inside = tuple(slice(2, -2) for _ in range(axes))
    for mask in (first, second):
        mask[~np.pad(np.ones_like(mask[inside]), 2)] = False
    expected = compute_surface_dice(
        onehot(first), onehot(second), class_thresholds=[1.5], spacing=spacing, use_subvoxels=True
    )
    assert normalized_surface_dice(first, second, spacing, 1.5) == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(("axes", "spacing", "seed"), CASES)
def test_hausdorff_is_within_a_voxel_of_monais(axes, spacing, seed):
    first, second = pair(seed, SHAPES[axes])
    expected = compute_hausdorff_distance(onehot(first), onehot(second), percentile=95, spacing=spacing)
    voxel = math.hypot(*spacing)
    assert hausdorff95(first, second, spacing) == pytest.approx(expected.item(), abs=voxel)


def test_hausdorff_is_monais_where_the_definitions_agree():
    first = cube((40, 40, 30), (5, 6, 7), (25, 26, 17))
    second = np.roll(first, 4, axis=2)
    expected = compute_hausdorff_distance(
        onehot(first), onehot(second), percentile=95, spacing=(0.8, 0.8, 2.0)
    )
    assert hausdorff95(first, second, (0.8, 0.8, 2.0)) == pytest.approx(expected.item()) == 8.0


def test_a_few_stray_voxels_do_not_move_the_95th_percentile():
    first = cube((40, 40, 40), (10, 10, 10), (30, 30, 30))
    second = first.copy()
    second[1, 1, 1] = True
    assert hausdorff95(first, second, (1, 1, 1)) == 0.0


def test_a_tolerance_of_whole_voxels_includes_them_whatever_the_rounding():
    first = cube((20, 20, 20), (5, 5, 5), (15, 15, 15))
    spacing = [float(np.float32(0.1))] * 3
    assert normalized_surface_dice(first, np.roll(first, 3, axis=0), spacing, 0.3) == 1.0


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 9)])
def test_empty_masks(shape):
    empty, some, spacing = np.zeros(shape, bool), np.ones(shape, bool), (1.0,) * len(shape)
    assert normalized_surface_dice(empty, empty, spacing, 1) == 1.0
    assert normalized_surface_dice(empty, some, spacing, 1) == 0.0
    assert normalized_surface_dice(some, empty, spacing, 1) == 0.0
    assert hausdorff95(empty, empty, spacing) == 0.0
    assert hausdorff95(empty, some, spacing) == hausdorff95(some, empty, spacing) == math.inf


def test_where_an_array_ends_makes_no_difference():
    first, second = pair(3, (30, 30, 20))
    padded = [np.pad(mask, ((0, 9), (4, 0), (1, 7))) for mask in (first, second)]
    spacing = (1, 1.2, 2)
    assert hausdorff95(first, second, spacing) == hausdorff95(*padded, spacing)
    assert normalized_surface_dice(first, second, spacing, 1) == pytest.approx(
        normalized_surface_dice(*padded, spacing, 1), rel=1e-12
    )


def test_a_tolerance_that_is_not_possible_is_refused():
    mask = np.ones((3, 3), bool)
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"Invalid tolerance {tolerance} mm"):
            normalized_surface_dice(mask, mask, (1, 1), tolerance)


def test_masks_on_two_grids_and_a_spacing_of_another_are_refused():
    mask = np.ones((3, 3), bool)
    with pytest.raises(ValueError, match="cannot be compared"):
        hausdorff95(mask, mask[:2], (1, 1))
    for spacing in [(1, 1, 1), (1, 0), (1, -1), (1, math.nan), (1, math.inf)]:
        with pytest.raises(ValueError, match="a positive number for each of 2 axes"):
            hausdorff95(mask, mask, spacing)
    for axes in (1, 4):
        with pytest.raises(ValueError, match=f"{axes} axes have no surface distance"):
            hausdorff95(np.ones((2,) * axes, bool), np.ones((2,) * axes, bool), (1,) * axes)


def test_what_is_not_bool_is_no_mask():
    mask = np.ones((3, 3), bool)
    for pair_ in ((mask, mask.astype(np.uint8)), (mask.astype(np.uint8), mask)):
        with pytest.raises(ValueError, match="Masks must be bool, not uint8"):
            hausdorff95(*pair_, (1, 1))


def test_an_organ_in_a_large_volume_takes_seconds():
    i, j, k = np.ogrid[-1:1:220j, -1:1:180j, -1:1:120j]
    first = np.zeros((512, 512, 300), bool)
    first[100:320, 150:330, 90:210] = i**2 + j**2 + k**2 < 1
    second = np.roll(first, 3, axis=1)
    started = time.perf_counter()
    assert 0.5 < normalized_surface_dice(first, second, (0.7, 0.7, 1.5), 2) < 1
    assert 1 < hausdorff95(first, second, (0.7, 0.7, 1.5)) < 3
    assert time.perf_counter() - started < TIME_LIMIT_S
