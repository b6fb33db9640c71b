"""F and J&F, against the published program of DAVIS written anew with scikit-image's morphology."""

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import dilation, disk

from lib.metrics.boundary import boundary_f, region_and_boundary
from tests.unit.metrics.conftest import cube, pair


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


@pytest.mark.parametrize("shape", [(64, 80), (31, 47), (130, 260)])
@pytest.mark.parametrize("seed", range(3))
def test_as_davis_has_it(seed, shape):
    first, second = pair(seed, shape, differing=0.4)
    expected = f_of_davis(first, second)
    assert 0.1 < expected < 1
    assert boundary_f(first, second) == pytest.approx(expected)


def test_as_davis_has_it_at_other_tolerances():
    first, second = pair(7, (90, 70), differing=0.4)
    for share in (0, 0.004, 0.02, 0.05):
        assert boundary_f(first, second, share) == pytest.approx(f_of_davis(first, second, share))


@pytest.mark.parametrize(("size", "moved", "expected"), [(100, 2, 1.0), (100, 3, 0.0), (200, 3, 1.0)])
def test_the_tolerance_grows_with_the_image(size, moved, expected):
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
