"""Patches and prompts of the network calls for clicks and boxes."""

import numpy as np
import pytest
from scipy import ndimage

from lib.engine.predictor import Outputs
from lib.pathology.interactive import SlidePredictor
from lib.pathology.patch import TileRectangle
from tests.support.slides import Cell, iou
from tests.unit.pathology.test_slide import picture

# On one place of the grid on which patches lie.
NEIGHBOURS = Cell(386, 290, 11, 9, 0), Cell(405, 311, 9, 10, 0)
NONE = np.zeros((0, 2))
SIZE = 1200


class DarkObjects:
    """Stands in for a network: its mask is the dark piece at the first positive click or the box.

    Pieces touch where dark pixels join them; a negative click removes the pixels that are nearer to it.
    """

    image_size = 256

    def __init__(self):
        self.asked = []

    def outputs(self, frames, index, prompts, choice="best"):
        self.asked.append(
            (frames.rectangle, [(item.points.tolist(), item.labels.tolist()) for item in prompts])
        )
        dark = frames[0][..., 0] < 128
        logits = np.stack(
            [np.where(self._seen(dark, item), 4.0, -4.0).astype(np.float32) for item in prompts]
        )
        count = len(prompts)
        return Outputs(logits, np.full((count, 1), 0.9, np.float32), np.full(count, 9.0, np.float32))

    @staticmethod
    def _seen(dark, item):
        pieces, _ = ndimage.label(dark)
        x, y = item.points[0] if len(item.points) else (item.box[:2] + item.box[2:]) / 2
        row, column = np.clip(np.rint([y, x]), 0, np.array(dark.shape) - 1).astype(int)
        seen = (pieces == pieces[row, column]) & dark
        grid_y, grid_x = np.mgrid[: dark.shape[0], : dark.shape[1]]
        for point in item.points[item.labels == 0]:
            seen &= np.hypot(grid_x - x, grid_y - y) < np.hypot(grid_x - point[0], grid_y - point[1])
        return seen


def dark_cells(cells, width=SIZE, height=SIZE):
    """uint8 (H, W, 3), dark cells on bright ground."""
    y, x = np.mgrid[:height, :width] + 0.5
    pixels = np.full((height, width, 3), 230, np.uint8)
    for cell in cells:
        cos, sin = np.cos(cell.angle), np.sin(cell.angle)
        u, v = (x - cell.x) * cos + (y - cell.y) * sin, (y - cell.y) * cos - (x - cell.x) * sin
        pixels[(u / cell.a) ** 2 + (v / cell.b) ** 2 <= 1] = 40
    return pixels


def slide(*cells):
    return picture(dark_cells(cells))


@pytest.fixture
def network():
    return DarkObjects()


def test_clicks_in_one_patch_are_one_question(network):
    cells = [*NEIGHBOURS, Cell(900, 700, 14, 14, 0)]
    clicks = np.array([cell.click for cell in cells], float)
    found = SlidePredictor(slide(*cells), network, 1.0).each(clicks, NONE)
    assert [len(prompts) for _, prompts in network.asked] == [2, 1]
    assert all(iou(item.area, cell.outline) > 0.9 for item, cell in zip(found, cells, strict=True))


def test_a_second_click_nearby_meets_the_same_patch(network):
    cells = [*NEIGHBOURS]
    predictor = SlidePredictor(slide(*cells), network, 1.0)
    for cell in cells:
        predictor.each(np.array([cell.click], float), NONE)
    (first, _), (second, _) = network.asked
    assert first == second


def test_negative_points_belong_to_every_object(network):
    cells = [*NEIGHBOURS]
    SlidePredictor(slide(*cells), network, 1.0).each(
        np.array([cell.click for cell in cells], float), np.array([[410.0, 350]])
    )
    assert [labels for _, labels in network.asked[0][1]] == [[1, 0], [1, 0]]


def test_nuclei_that_touch_come_apart(network):
    cells = [Cell(376, 300, 16, 14, 0), Cell(404, 300, 16, 14, 0)]
    found = SlidePredictor(slide(*cells), network, 1.0).each(
        np.array([cell.click for cell in cells], float), NONE
    )
    assert len(network.asked) == 2
    assert [labels for _, labels in network.asked[1][1]] == [[1, 0], [1, 0]]
    assert found[0].area.intersection(found[1].area).area < 5
    assert all(iou(item.area, cell.outline) > 0.85 for item, cell in zip(found, cells, strict=True))


def test_two_clicks_on_one_nucleus_are_one_outline(network):
    cell = Cell(400, 300, 16, 14, 0.4)
    clicks = np.array([[395.0, 296], [404, 303], [399, 300]])
    (found,) = SlidePredictor(slide(cell), network, 1.0).each(clicks, NONE)
    assert iou(found.area, cell.outline) > 0.9


def test_a_patch_at_a_lower_magnification_shows_as_much_tissue(network):
    # At 20-fold magnification the nuclei are half as large, and so is the patch.
    cell = Cell(400, 300, 8, 7, 0)
    (found,) = SlidePredictor(slide(cell), network, 0.5).each(np.array([[400.0, 300]]), NONE)
    ((rectangle, _),) = network.asked
    assert rectangle.width == 96
    assert iou(found.area, cell.outline) > 0.85


def test_an_object_larger_than_the_patch_is_seen_from_farther_away(network):
    gland = Cell(600, 600, 260, 200, 0)
    (found,) = SlidePredictor(slide(gland), network, 1.0).each(np.array([[600.0, 600]]), NONE)
    assert [rectangle.scale for rectangle, _ in network.asked] == [1, 2, 4]
    assert iou(found.area, gland.outline) > 0.97


def test_a_click_on_nothing_finds_nothing(network):
    (found,) = SlidePredictor(slide(), network, 1.0).each(np.array([[600.0, 600]]), NONE)
    assert found.area.is_empty
    assert len(network.asked) == 1


def test_one_object_from_clicks_that_are_far_apart(network):
    gland = Cell(600, 600, 260, 200, 0)
    found = SlidePredictor(slide(gland), network, 1.0).one(np.array([[420.0, 600], [800, 620]]), NONE)
    assert network.asked[0][0].scale == 4  # 380 pixels are half of 192 x 4 at most
    assert iou(found.area, gland.outline) > 0.97


def test_a_box_is_looked_at_with_what_is_around_it(network):
    cell = Cell(300, 500, 90, 60, 0)
    found = SlidePredictor(slide(cell), network, 1.0).one(NONE, NONE, cell.outline.bounds)
    ((rectangle, _),) = network.asked
    assert isinstance(rectangle, TileRectangle)
    assert rectangle.scale == 2
    assert rectangle.x < 210 - 40
    assert rectangle.x + rectangle.width > 390 + 40
    assert iou(found.area, cell.outline) > 0.97


def test_the_level_that_was_asked_for_is_where_it_begins(network):
    cell = Cell(600, 600, 60, 50, 0)
    found = SlidePredictor(slide(cell), network, 4.0).each(np.array([[600.0, 600]]), NONE)
    assert [rectangle.scale for rectangle, _ in network.asked] == [4]
    assert iou(found[0].area, cell.outline) > 0.95
