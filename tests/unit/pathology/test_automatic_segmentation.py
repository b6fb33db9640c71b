"""All objects of a rectangle: each once, whole across tiles, and nothing that is no object."""

import pytest

from lib.pathology.automatic_segmentation import everything
from lib.pathology.interactive import Viewer
from tests.support.slides import Cell, iou
from tests.unit.pathology.test_interactive import Eye, slide

# Tiles begin at multiples of 144 and are 192 wide: this is where four of them meet.
CORNER = 432


def found_in(region, *cells):
    return everything(Viewer(slide(*cells), Eye(), 1.0), [region])


@pytest.mark.parametrize("place", [(CORNER, CORNER), (CORNER + 48, 400), (500, CORNER + 24), (520, 520)])
def test_a_nucleus_is_found_once_wherever_tiles_meet(place):
    cell = Cell(*place, 14, 11, 0)
    (item,) = found_in((420, 380, 150, 160), cell)
    assert iou(item.area, cell.outline) > 0.93
    assert item.score == pytest.approx(0.9)


def test_neighbours_are_two():
    cells = [Cell(470, 440, 10, 12, 0), Cell(492, 440, 9, 12, 0)]
    found = found_in((430, 400, 120, 100), *cells)
    assert len(found) == 2
    assert all(max(iou(item.area, cell.outline) for item in found) > 0.9 for cell in cells)


def test_an_object_longer_than_a_tile_has_no_seam():
    band = Cell(550, 500, 190, 12, 0)
    (item,) = found_in((420, 440, 260, 120), band)
    assert iou(item.area, band.outline) > 0.93


def test_an_object_that_ends_outside_the_rectangle_is_whole():
    # Its middle is in the rectangle, and its right end on no tile of it.
    cell = Cell(560, 500, 90, 12, 0)
    (item,) = found_in((440, 480, 130, 40), cell)
    assert iou(item.area, cell.outline) > 0.93


def test_what_lies_in_another_place_is_not_asked_for():
    assert found_in((420, 400, 60, 60), Cell(500, 430, 12, 12, 0)) == []


def test_what_fills_its_tiles_is_the_ground():
    assert found_in((200, 500, 100, 100), Cell(600, 600, 350, 350, 0)) == []


def test_blank_tiles_are_not_looked_at():
    eye = Eye()
    assert everything(Viewer(slide(), eye, 1.0), [(300, 300, 500, 500)]) == []
    assert eye.asked == []
