import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from sample_study.cells import COUNT, cells


@pytest.fixture(scope="module")
def case():
    return cells(np.random.default_rng(0))


def test_it_is_a_colour_picture_without_a_slice_axis(case):
    assert case.image.shape == (256, 256, 3)
    assert case.image.dtype == np.uint8
    assert not case.is_volume


def test_every_cell_is_one_piece_and_the_first_is_the_largest(case):
    sizes = [case.mask(name).sum() for name in case.labels]
    assert len(sizes) == COUNT
    assert sizes == sorted(sizes, reverse=True)
    assert all(label(case.mask(name))[1] == 1 for name in case.labels)


def test_cells_touch_neither_each_other_nor_the_border(case):
    for name in case.labels:
        around = binary_dilation(case.mask(name), iterations=2) & ~case.mask(name)
        assert not case.truth[around].any()
    border = np.ones_like(case.truth, bool)
    border[1:-1, 1:-1] = False
    assert not case.truth[border].any()


def test_cells_are_darker_than_the_ground(case):
    grey = case.image.mean(axis=2)
    assert grey[case.truth > 0].mean() + 50 < grey[case.truth == 0].mean()
