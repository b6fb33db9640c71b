"""Patches: where they lie, and the way from the slide into them and back."""

import numpy as np
import pytest
from shapely.geometry import box

from lib.pathology.patch import Patch, TileRectangle, read_patch, rectangle_around
from tests.unit.pathology.test_slide import picture


@pytest.fixture(scope="module")
def slide():
    return picture(np.random.default_rng(1).integers(0, 255, (600, 900, 3)).astype(np.uint8))


def test_clicks_near_each_other_meet_the_same_patch(slide):
    first = rectangle_around(slide, 400, 300, 192, 1.0)
    assert rectangle_around(slide, 407, 293, 192, 1.0) == first
    assert first != rectangle_around(slide, 500, 300, 192, 1.0)
    assert read_patch(slide, first).digest == read_patch(slide, first).digest


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_click_is_well_inside_its_patch(slide, scale):
    rng = np.random.default_rng(2)
    for x, y in rng.uniform((200, 200), (700, 400), (50, 2)):
        rectangle = rectangle_around(slide, x, y, 192, scale)
        assert rectangle.width == rectangle.height == 192 * scale
        assert min(x - rectangle.x, rectangle.x + rectangle.width - x) >= 192 * scale * 3 / 8 - 1


def test_at_the_border_a_patch_stays_on_the_slide(slide):
    assert rectangle_around(slide, 0, 0, 192, 1.0) == TileRectangle(0, 0, 192, 192, 1.0)
    assert rectangle_around(slide, 899, 599, 192, 1.0) == TileRectangle(708, 408, 192, 192, 1.0)
    assert rectangle_around(slide, 450, 300, 400, 2.0) == TileRectangle(0, 0, 800, 600, 2.0)


def test_points_go_in_and_outlines_come_back(slide):
    patch = read_patch(slide, TileRectangle(100, 60, 200, 120, 2.0))
    assert (patch.width, patch.height) == (100, 60)
    # The pixel (110, 80) lies ten to eleven right of the corner: the left half of the patch's sixth.
    assert patch.inside([[110, 80]]).tolist() == [[4.75, 9.75]]
    assert patch.box_inside([110, 80, 130, 100]).tolist() == [5, 10, 15, 20]
    assert patch.to_slide(box(5, 10, 15, 20)).bounds == (110, 80, 130, 100)


@pytest.mark.parametrize(
    ("area", "cut"),
    [
        ((150, 100, 200, 150), False),
        ((100.5, 100, 200, 150), True),
        ((150, 100, 291, 150), True),
        ((150, 61, 200, 150), True),
        ((150, 100, 200, 159), True),
    ],
)
def test_what_ends_at_the_patch_s_border_is_cut(area, cut):
    patch = Patch(TileRectangle(100, 60, 192, 100, 1.0), np.zeros((100, 192, 3), np.uint8), (900, 600))
    assert patch.cuts(box(*area), 2) == cut


def test_what_ends_at_the_slide_s_border_is_whole():
    patch = Patch(TileRectangle(0, 0, 192, 192, 1.0), np.zeros((192, 192, 3), np.uint8), (192, 192))
    assert not patch.cuts(box(0, 0, 192, 192), 2)


def test_a_patch_has_one_frame():
    patch = Patch(TileRectangle(0, 0, 8, 6, 1.0), np.zeros((6, 8, 3), np.uint8), (8, 6))
    assert len(patch) == 1
    assert patch[0].shape == (6, 8, 3)
    with pytest.raises(IndexError):
        patch[1]
