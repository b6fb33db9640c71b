"""Elements of surfaces, against the areas of known shapes and DeepMind's surface-distance."""

import itertools
import math

import numpy as np
import pytest
from surface_distance import lookup_tables

from lib.metrics.elements import surface_elements
from tests.unit.metrics.conftest import cube


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 1.3, 5)])
def test_every_neighbourhood_has_the_area_that_deepmind_gives_it(spacing):
    expected = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    for voxels in itertools.product((0, 1), repeat=8):
        mask = np.asarray(voxels, bool).reshape(2, 2, 2)
        elements = surface_elements(mask, spacing)
        middle = elements.areas[(elements.corners == 1).all(axis=1)].sum()
        code = int((lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL * mask).sum())
        assert middle == pytest.approx(expected[code]), f"{code:08b}"


def test_every_neighbourhood_of_a_picture_has_the_length_that_deepmind_gives_it():
    expected = lookup_tables.create_table_neighbour_code_to_contour_length((0.7, 1.9))
    for pixels in itertools.product((0, 1), repeat=4):
        mask = np.asarray(pixels, bool).reshape(2, 2)
        elements = surface_elements(mask, (0.7, 1.9))
        middle = elements.areas[(elements.corners == 1).all(axis=1)].sum()
        assert middle == pytest.approx(expected[int("".join(map(str, pixels)), 2)])


def test_the_contour_of_a_square_is_its_sides_with_cut_corners():
    elements = surface_elements(cube((20, 20), (4, 5), (14, 15)), (1, 1))
    assert elements.areas.sum() == pytest.approx(4 * 9 + 4 * math.sqrt(0.5))
    assert elements.corners.min(axis=0).tolist() == [4, 5]
    assert elements.corners.max(axis=0).tolist() == [14, 15]


def test_a_ball_has_about_its_area():
    i, j, k = np.ogrid[:60, :60, :30]
    mask = (i - 30) ** 2 + (j - 30) ** 2 + (2 * (k - 15)) ** 2 < 25**2
    area = surface_elements(mask, (1, 1, 2)).areas.sum()
    # Steps of voxels have about an eighth more than the smooth surface; faces of voxels would have half more.
    assert 1 < area / (4 * math.pi * 25**2) < 1.2


def test_an_object_at_the_edge_has_a_surface_there():
    assert surface_elements(np.ones((4, 5, 6), bool), (1, 1, 1)).corners.max(axis=0).tolist() == [4, 5, 6]


def test_an_empty_mask_has_none():
    elements = surface_elements(np.zeros((4, 5, 6), bool), (1, 1, 1))
    assert elements.corners.shape == (0, 3)
    assert elements.areas.shape == (0,)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, -1, 1), (1, math.nan, 1), (1, math.inf, 1)])
def test_a_spacing_that_is_not_possible_is_refused(spacing):
    with pytest.raises(ValueError, match="is not one positive number for each of 3 axes"):
        surface_elements(np.ones((2, 2, 2), bool), spacing)


@pytest.mark.parametrize("axes", [1, 4])
def test_only_areas_and_volumes_have_surfaces(axes):
    with pytest.raises(ValueError, match=f"{axes} axes has no surface here"):
        surface_elements(np.ones((2,) * axes, bool), (1,) * axes)
