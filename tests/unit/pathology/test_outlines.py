"""Outlines from logits: where the map crosses zero, with holes, closed at the border, without spikes."""

import math

import numpy as np
import pytest
from shapely.geometry import Polygon

from lib.pathology.outlines import outline, tidy


def cone(x, y, radius, rows=64, columns=64):
    """A map that is positive inside a circle and crosses zero on it; the first cell reaches from 0 to 1."""
    grid_y, grid_x = np.mgrid[:rows, :columns] + 0.5
    return (radius - np.hypot(grid_x - x, grid_y - y)).astype(np.float32)


def test_a_disc_has_its_area_and_its_middle():
    (piece,) = outline(cone(40, 22, 15), 64, 64).geoms
    assert piece.area == pytest.approx(math.pi * 15**2, rel=0.005)
    assert (piece.centroid.x, piece.centroid.y) == pytest.approx((40, 22), abs=0.05)


def test_a_coarse_map_fills_a_patch_of_another_size_and_shape():
    # 64 x 32 cells on a patch of 192 x 160 pixels: 3 pixels a cell along x, 5 along y.
    (piece,) = outline(cone(40, 16, 8, rows=32), 192, 160).geoms
    assert piece.bounds == pytest.approx((96, 40, 144, 120), abs=0.5)


def test_an_object_at_the_border_ends_on_it():
    x0, y0, x1, y1 = outline(cone(0, 30, 10), 64, 64).bounds
    assert (x0, y0, x1, y1) == pytest.approx((0, 20, 10, 40), abs=0.1)
    assert outline(np.full((5, 6), 2.0, np.float32), 6, 5).bounds == (0, 0, 6, 5)


def test_holes_and_islands_stay():
    ring = np.minimum(cone(30, 30, 20), -cone(30, 30, 8))
    area = outline(np.maximum(ring, cone(58, 58, 4)), 64, 64)
    assert sorted(len(piece.interiors) for piece in area.geoms) == [0, 1]
    assert area.area == pytest.approx(math.pi * (400 - 64 + 16), rel=0.01)
    assert area.is_valid


def test_nothing_has_no_outline():
    assert outline(np.full((8, 8), -1024.0, np.float32), 8, 8).is_empty


def test_tidying_fills_small_holes_and_takes_spikes_off():
    square = [(10, 10), (40, 10), (40, 24.5), (60, 24.5), (60, 25.5), (40, 25.5), (40, 40), (10, 40)]
    small, large = [(14, 14), (17, 14), (17, 17), (14, 17)], [(22, 22), (32, 22), (32, 32), (22, 32)]
    result = tidy(Polygon(square, [small, large]), least_area=30, scale=1)
    assert len(result.interiors) == 1
    assert result.bounds == pytest.approx((10, 10, 40, 40), abs=0.3)
    assert result.area == pytest.approx(30 * 30 - 10 * 10, rel=0.01)


def test_tidying_leaves_few_corners_on_the_outline():
    disc = Polygon([(30 + 15 * math.cos(t / 50), 30 + 15 * math.sin(t / 50)) for t in range(314)])
    result = tidy(disc, least_area=0, scale=1)
    assert len(result.exterior.coords) < 60
    assert result.hausdorff_distance(disc) < 0.5


def test_what_is_thinner_than_the_network_sees_is_no_object():
    assert tidy(Polygon([(0, 0), (50, 0), (50, 1), (0, 1)]), least_area=0, scale=1).is_empty
    assert tidy(Polygon(), least_area=0, scale=1).is_empty
