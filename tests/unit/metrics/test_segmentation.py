"""Overlap, by hand and against scipy and MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import surface_distance
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import dice as dice_dissimilarity
from scipy.spatial.distance import jaccard as jaccard_distance
from skimage.morphology import dilation, disk

from lib.metrics.segmentation import (
    boundary_f,
    dice,
    hausdorff95,
    instance_f1,
    jaccard,
    normalized_surface_dice,
    region_and_boundary,
)
from tests.unit.metrics.conftest import cube, pair


def batched(mask):
    return torch.from_numpy(mask)[None, None]


def test_by_hand():
    first, second = cube((8, 8), (0, 0), (4, 4)), cube((8, 8), (2, 0), (6, 4))
    assert dice(first, second) == pytest.approx(2 * 8 / (16 + 16))
    assert jaccard(first, second) == pytest.approx(8 / 24)


def test_as_scipy_and_monai_have_it():
    for seed, shape in [(0, (40, 50)), (1, (40, 50)), (2, (20, 24, 16)), (3, (20, 24, 16))]:
        first, second = pair(seed, shape)
        assert 0.3 < dice(first, second) < 1
        assert dice(first, second) == pytest.approx(1 - dice_dissimilarity(first.ravel(), second.ravel()))
        assert jaccard(first, second) == pytest.approx(1 - jaccard_distance(first.ravel(), second.ravel()))
        assert dice(first, second) == pytest.approx(compute_dice(batched(first), batched(second)).item())
        assert jaccard(first, second) == pytest.approx(compute_iou(batched(first), batched(second)).item())


def test_empty_masks_and_equal_ones():
    for measure in [dice, jaccard]:
        for shape in [(7,), (5, 6), (3, 4, 5), (2, 3, 4, 5)]:
            empty, full = np.zeros(shape, bool), np.ones(shape, bool)
            assert measure(empty, empty) == 1.0
            assert measure(empty, full) == measure(full, empty) == 0.0
            assert measure(full, full) == 1.0


def test_what_cannot_be_compared_is_refused():
    for measure in [dice, jaccard]:
        with pytest.raises(
            ValueError, match=r"\(4, 4\) and \(4, 1\) cannot be compared: resample to one grid"
        ):
            measure(np.zeros((4, 4), bool), np.zeros((4, 1), bool))
        mask = np.zeros((3, 4), bool)
        for masks in ((mask, mask.astype(np.uint8)), (mask.astype(np.uint8), mask)):
            with pytest.raises(
                ValueError, match="Masks must be bool, not uint8: compare, for example, mask > 0"
            ):
                measure(*masks)


SPACINGS = {2: [(1.0, 1.0), (0.6, 1.7)], 3: [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0)]}
SHAPES = {2: (50, 60), 3: (24, 30, 20)}
CASES = [(axes, spacing, seed) for axes in (2, 3) for spacing in SPACINGS[axes] for seed in range(3)]
# Ample for a busy machine, and less than distance transforms of the whole volume take.


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


def test_surface_distances_as_deepmind_has_them():
    for axes, spacing, seed in CASES:
        first, second = pair(seed, SHAPES[axes])
        distances = surface_distance.compute_surface_distances(first, second, spacing)
        for tolerance in (0.0, 1.0, 2.0):
            expected = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)
            assert 0.05 < expected < 1
            assert normalized_surface_dice(first, second, spacing, tolerance) == pytest.approx(expected)

    # Hausdorff as deepmind has it.
    for axes, spacing, seed in CASES:
        first, second = pair(seed, SHAPES[axes])
        distances = surface_distance.compute_surface_distances(first, second, spacing)
        expected = surface_distance.compute_robust_hausdorff(distances, 95)
        assert expected > 1
        assert hausdorff95(first, second, spacing) == pytest.approx(expected)


def test_surface_distances_as_monai_has_them():
    for axes, spacing, seed in CASES:
        first, second = pair(seed, SHAPES[axes])
        # MONAI, unlike here, has no surface where an object touches the edge of the array.
        inside = tuple(slice(2, -2) for _ in range(axes))
        for mask in (first, second):
            mask[~np.pad(np.ones_like(mask[inside]), 2)] = False
        expected = compute_surface_dice(
            onehot(first), onehot(second), class_thresholds=[1.5], spacing=spacing, use_subvoxels=True
        )
        assert normalized_surface_dice(first, second, spacing, 1.5) == pytest.approx(
            expected.item(), abs=1e-5
        )

    # Hausdorff is within a voxel of monais.
    for axes, spacing, seed in CASES:
        first, second = pair(seed, SHAPES[axes])
        expected = compute_hausdorff_distance(onehot(first), onehot(second), percentile=95, spacing=spacing)
        voxel = math.hypot(*spacing)
        assert hausdorff95(first, second, spacing) == pytest.approx(expected.item(), abs=voxel)

    # Hausdorff is monais where the definitions agree.
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


def test_empty_masks():
    for shape in [(9, 9), (9, 9, 9)]:
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


def test_surfaces_that_cannot_be_compared_are_refused():
    mask = np.ones((3, 3), bool)
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"Invalid tolerance {tolerance} mm"):
            normalized_surface_dice(mask, mask, (1, 1), tolerance)

    # Masks on two grids and a spacing of another are refused.
    mask = np.ones((3, 3), bool)
    with pytest.raises(ValueError, match="cannot be compared"):
        hausdorff95(mask, mask[:2], (1, 1))
    for spacing in [(1, 1, 1), (1, 0), (1, -1), (1, math.nan), (1, math.inf)]:
        with pytest.raises(ValueError, match="a positive number for each of 2 axes"):
            hausdorff95(mask, mask, spacing)
    for axes in (1, 4):
        with pytest.raises(ValueError, match=f"{axes} axes have no surface distance"):
            hausdorff95(np.ones((2,) * axes, bool), np.ones((2,) * axes, bool), (1,) * axes)

    # What is not bool is no mask.
    mask = np.ones((3, 3), bool)
    for pair_ in ((mask, mask.astype(np.uint8)), (mask.astype(np.uint8), mask)):
        with pytest.raises(ValueError, match="Masks must be bool, not uint8"):
            hausdorff95(*pair_, (1, 1))


def contour_of_davis(mask):
    """DAVIS' seg2bmap at the mask's own size, pixel by pixel."""
    height, width = mask.shape
    contour = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            others = mask[y, right], mask[below, x], mask[below, right]
            contour[y, x] = any(other != mask[y, x] for other in others)
    return contour


def f_of_davis(first, second, share=0.008):
    """DAVIS' db_eval_boundary."""
    radius = math.ceil(share * np.linalg.norm(first.shape))
    contours = contour_of_davis(first), contour_of_davis(second)
    reach = [dilation(contour.astype(np.uint8), disk(radius)) > 0 for contour in contours]
    precision = (contours[0] & reach[1]).sum() / contours[0].sum()
    recall = (contours[1] & reach[0]).sum() / contours[1].sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_boundaries_as_davis_has_them():
    for shape in [(64, 80), (31, 47), (130, 260)]:
        for seed in range(3):
            first, second = pair(seed, shape, differing=0.4)
            expected = f_of_davis(first, second)
            assert 0.1 < expected < 1
            assert boundary_f(first, second) == pytest.approx(expected)

    # As davis has it at other tolerances.
    first, second = pair(7, (90, 70), differing=0.4)
    for share in (0, 0.004, 0.02, 0.05):
        assert boundary_f(first, second, share) == pytest.approx(f_of_davis(first, second, share))


def test_the_tolerance_grows_with_the_image():
    for size, moved, expected in [(100, 2, 1.0), (100, 3, 0.0), (200, 3, 1.0)]:
        # 0.008 of the diagonal, rounded up: 2 pixels at 100, 3 at 200. A stripe's edges move all at once.
        first = np.zeros((size, size), bool)
        first[:, 20:60] = True
        assert boundary_f(first, np.roll(first, moved, axis=1)) == expected


def test_a_disk_is_round():
    # A lone pixel's boundary is 2x2 pixels. Of two of them, 2 pixels apart along both axes, only the corners
    # that face each other are within 2 pixels; in a square of that size all would be.
    first, second = cube((100, 100), (50, 50), (51, 51)), cube((100, 100), (52, 52), (53, 53))
    assert boundary_f(first, second) == pytest.approx(0.25)


def test_masks_without_a_boundary():
    empty, full, some = np.zeros((20, 30), bool), np.ones((20, 30), bool), cube((20, 30), (5, 5), (9, 9))
    assert boundary_f(empty, empty) == 1.0
    assert boundary_f(full, full) == 1.0
    assert boundary_f(empty, some) == boundary_f(some, empty) == 0.0
    assert region_and_boundary(empty, empty) == (1.0, 1.0, 1.0)
    assert region_and_boundary(empty, some) == (0.0, 0.0, 0.0)


def test_j_and_f_is_their_mean():
    truth = ndimage.binary_dilation(cube((100, 100), (50, 50), (51, 51)), iterations=20)
    region, boundary, mean = region_and_boundary(np.roll(truth, 1, axis=0), truth)
    overlap = (truth & np.roll(truth, 1, axis=0)).sum()
    assert region == pytest.approx(overlap / (2 * truth.sum() - overlap))
    assert boundary == 1.0
    assert mean == pytest.approx((region + 1) / 2)


def test_a_volume_and_a_negative_tolerance_are_refused():
    with pytest.raises(ValueError, match="Masks with 3 axes have no boundary F: compare slice by slice"):
        boundary_f(np.ones((3, 3, 3), bool), np.ones((3, 3, 3), bool))
    with pytest.raises(ValueError, match=r"Invalid tolerance -0\.1"):
        boundary_f(np.ones((3, 3), bool), np.ones((3, 3), bool), -0.1)


def row_of_cells(starts, length=10, width=100):
    labels = np.zeros((4, width), np.uint16)
    for number, start in enumerate(starts, start=1):
        labels[:, start : start + length] = number
    return labels


def f1_of_the_challenge(predicted, true, iou):
    """With the matrix of every pair and the assignment of least cost, as the challenge's program has it."""
    matrix = np.array(
        [
            [
                ((predicted == one) & (true == other)).sum() / ((predicted == one) | (true == other)).sum()
                for other in np.unique(true[true > 0])
            ]
            for one in np.unique(predicted[predicted > 0])
        ]
    )
    cost = -(matrix >= iou).astype(float) - matrix / (2 * min(matrix.shape))
    rows, columns = linear_sum_assignment(cost)
    matches = int((matrix[rows, columns] >= iou).sum())
    return 2 * matches / sum(matrix.shape)


def random_cells(seed, shape):
    """Two label maps of touching cells, one a distortion of the other."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 1, (12, len(shape))) * shape
    grid = np.stack(np.meshgrid(*(np.arange(length) for length in shape), indexing="ij"), axis=-1)
    distorted = grid + np.stack(
        [15 * ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in shape], axis=-1
    )
    labels = []
    for places in (grid, distorted):
        distances = np.linalg.norm(places[..., None, :] - seeds, axis=-1)
        labels.append(np.where(distances.min(axis=-1) < 9, distances.argmin(axis=-1) * 3 + 2, 0))
    return labels


def test_instance_f1_by_hand():
    # Moved by 2 of 10: 8 of 12 overlap. Moved by 4: 6 of 14 do not suffice.
    true = row_of_cells([0, 20, 40, 60])
    predicted = row_of_cells([0, 22, 44])
    assert instance_f1(predicted, true) == pytest.approx(2 * 2 / (3 + 4))
    assert instance_f1(true, predicted) == pytest.approx(2 * 2 / (3 + 4))

    # Half suffices as in the challenge.
    true = row_of_cells([0], length=20)
    half = row_of_cells([0], length=10)
    assert instance_f1(half, true) == 1.0
    assert instance_f1(half, true, iou=0.51) == 0.0

    # Two halves match one cell once.
    halves = row_of_cells([0, 10], length=10)
    whole = row_of_cells([0], length=20)
    assert instance_f1(halves, whole) == pytest.approx(2 * 1 / 3)

    # Values and types are only names.
    true = row_of_cells([0, 20])
    predicted = np.choose(true, [0, 900, -7]).astype(np.int32)
    assert instance_f1(predicted, true) == 1.0


def test_as_the_challenge_has_it():
    for seed, shape in [(0, (60, 70)), (1, (60, 70)), (2, (24, 26, 22))]:
        predicted, true = random_cells(seed, shape)
        for iou in (0.3, 0.5, 0.8):
            assert instance_f1(predicted, true, iou) == pytest.approx(
                f1_of_the_challenge(predicted, true, iou)
            )


def test_the_more_overlap_is_asked_for_the_fewer_cells_are_found():
    found = [instance_f1(*random_cells(0, (60, 70)), iou) for iou in (0.3, 0.5, 0.8)]
    assert 1 >= found[0] > found[1] > found[2]


def test_no_objects_and_no_background():
    none, some = np.zeros((4, 100), np.uint8), row_of_cells([0])
    assert instance_f1(none, none) == 1.0
    assert instance_f1(none, some) == instance_f1(some, none) == 0.0

    # A picture without background.
    assert instance_f1(np.ones((4, 4), int), np.full((4, 4), 5)) == 1.0


def test_thousands_of_cells_need_no_matrix_of_all_pairs():
    cells = np.arange(1, 250_001).reshape(500, 500).repeat(2, axis=0)
    assert instance_f1(cells, cells + 5) == 1.0


def test_what_is_not_a_pair_of_label_maps_is_refused():
    labels = np.ones((3, 4), int)
    with pytest.raises(ValueError, match="Instance maps must be integer, not float64"):
        instance_f1(labels, labels * 1.0)
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(4, 3\) cannot be compared"):
        instance_f1(labels, labels.T)
    with pytest.raises(ValueError, match="Invalid intersection over union 0"):
        instance_f1(labels, labels, 0)
