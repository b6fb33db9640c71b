"""F1 of instances, by hand and against the challenge's matching written anew."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from lib.metrics.instances import instance_f1


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


def test_by_hand():
    # Moved by 2 of 10: 8 of 12 overlap. Moved by 4: 6 of 14 do not suffice.
    true = row_of_cells([0, 20, 40, 60])
    predicted = row_of_cells([0, 22, 44])
    assert instance_f1(predicted, true) == pytest.approx(2 * 2 / (3 + 4))
    assert instance_f1(true, predicted) == pytest.approx(2 * 2 / (3 + 4))


def test_half_suffices_as_in_the_challenge():
    true = row_of_cells([0], length=20)
    half = row_of_cells([0], length=10)
    assert instance_f1(half, true) == 1.0
    assert instance_f1(half, true, iou=0.51) == 0.0


def test_two_halves_match_one_cell_once():
    halves = row_of_cells([0, 10], length=10)
    whole = row_of_cells([0], length=20)
    assert instance_f1(halves, whole) == pytest.approx(2 * 1 / 3)


def test_values_and_types_are_only_names():
    true = row_of_cells([0, 20])
    predicted = np.choose(true, [0, 900, -7]).astype(np.int32)
    assert instance_f1(predicted, true) == 1.0


@pytest.mark.parametrize(("seed", "shape"), [(0, (60, 70)), (1, (60, 70)), (2, (24, 26, 22))])
def test_as_the_challenge_has_it(seed, shape):
    predicted, true = random_cells(seed, shape)
    for iou in (0.3, 0.5, 0.8):
        assert instance_f1(predicted, true, iou) == pytest.approx(f1_of_the_challenge(predicted, true, iou))


def test_the_more_overlap_is_asked_for_the_fewer_cells_are_found():
    found = [instance_f1(*random_cells(0, (60, 70)), iou) for iou in (0.3, 0.5, 0.8)]
    assert 1 >= found[0] > found[1] > found[2]


def test_no_objects():
    none, some = np.zeros((4, 100), np.uint8), row_of_cells([0])
    assert instance_f1(none, none) == 1.0
    assert instance_f1(none, some) == instance_f1(some, none) == 0.0


def test_a_picture_without_background():
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
