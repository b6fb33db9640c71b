"""Overlap, by hand and against scipy and MONAI."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou
from scipy.spatial.distance import dice as dice_dissimilarity
from scipy.spatial.distance import jaccard as jaccard_distance

from lib.metrics.overlap import dice, jaccard
from tests.unit.metrics.conftest import cube, pair


def batched(mask):
    return torch.from_numpy(mask)[None, None]


def test_by_hand():
    first, second = cube((8, 8), (0, 0), (4, 4)), cube((8, 8), (2, 0), (6, 4))
    assert dice(first, second) == pytest.approx(2 * 8 / (16 + 16))
    assert jaccard(first, second) == pytest.approx(8 / 24)


@pytest.mark.parametrize(
    ("seed", "shape"), [(0, (40, 50)), (1, (40, 50)), (2, (20, 24, 16)), (3, (20, 24, 16))]
)
def test_as_scipy_and_monai_have_it(seed, shape):
    first, second = pair(seed, shape)
    assert 0.3 < dice(first, second) < 1
    assert dice(first, second) == pytest.approx(1 - dice_dissimilarity(first.ravel(), second.ravel()))
    assert jaccard(first, second) == pytest.approx(1 - jaccard_distance(first.ravel(), second.ravel()))
    assert dice(first, second) == pytest.approx(compute_dice(batched(first), batched(second)).item())
    assert jaccard(first, second) == pytest.approx(compute_iou(batched(first), batched(second)).item())


@pytest.mark.parametrize("measure", [dice, jaccard])
def test_empty_masks_and_equal_ones(measure):
    for shape in [(7,), (5, 6), (3, 4, 5), (2, 3, 4, 5)]:
        empty, full = np.zeros(shape, bool), np.ones(shape, bool)
        assert measure(empty, empty) == 1.0
        assert measure(empty, full) == measure(full, empty) == 0.0
        assert measure(full, full) == 1.0


@pytest.mark.parametrize("measure", [dice, jaccard])
def test_what_cannot_be_compared_is_refused(measure):
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 1\) cannot be compared: resample to one grid"):
        measure(np.zeros((4, 4), bool), np.zeros((4, 1), bool))
    mask = np.zeros((3, 4), bool)
    for masks in ((mask, mask.astype(np.uint8)), (mask.astype(np.uint8), mask)):
        with pytest.raises(ValueError, match="Masks must be bool, not uint8: compare, for example, mask > 0"):
            measure(*masks)
