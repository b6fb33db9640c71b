"""Tiles that cover a region, and objects made whole across them."""

import numpy as np
import pytest
import shapely
from shapely.geometry import Point, box

from lib.errors import ImageTooLargeError
from lib.pathology.patch import Patch, Window
from lib.pathology.tiles import MOST_TILES, Found, is_blank, merge, tile_windows
from tests.support.slides import GLASS, GROUND, Cell, iou, paint
from tests.unit.pathology.test_slide import Endless

LEFT, RIGHT = box(0, 0, 200, 200), box(150, 0, 350, 200)


def areas(windows):
    return [box(w.x, w.y, w.x + w.width, w.y + w.height) for w in windows]


@pytest.mark.parametrize(
    ("size", "region"),
    [((900, 600), (0, 0, 900, 600)), ((900, 600), (333, 222, 250, 160)), ((100, 500), (0, 0, 100, 500))],
)
def test_tiles_cover_a_region_and_are_all_of_one_size(size, region):
    windows = tile_windows(Endless(*size), [region], 192, 1.0)
    x, y, width, height = region
    assert shapely.union_all(areas(windows)).covers(box(x, y, x + width, y + height))
    assert {(w.width, w.height) for w in windows} == {(min(192, size[0]), min(192, size[1]))}
    assert all(w.x + w.width <= size[0] and w.y + w.height <= size[1] for w in windows)


def test_every_place_lies_an_overlap_s_half_inside_a_tile():
    # So that what is smaller than a quarter of a tile is whole on one of them.
    inner = [
        area.buffer(-23.9)
        for area in areas(tile_windows(Endless(2000, 1500), [(500, 500, 800, 600)], 192, 1.0))
    ]
    assert shapely.union_all(inner).covers(box(500, 500, 1300, 1100))


def test_neighbouring_regions_share_their_tiles():
    whole = tile_windows(Endless(2000, 2000), [(0, 0, 1024, 512)], 192, 1.0)
    parts = tile_windows(Endless(2000, 2000), [(0, 0, 512, 512), (512, 0, 512, 512)], 192, 1.0)
    assert set(parts) == set(whole)
    assert len(parts) == len(set(parts))


def test_too_large_a_region_is_refused_before_anything_is_read():
    with pytest.raises(ImageTooLargeError, match=f"{MOST_TILES} are the limit"):
        tile_windows(Endless(100_000, 80_000), [(0, 0, 100_000, 80_000)], 192, 1.0)


def blank(pixels):
    height, width = pixels.shape[:2]
    return is_blank(Patch(Window(0, 0, width, height, 1.0), pixels, (width, height)))


def test_glass_is_blank_and_tissue_is_not():
    assert blank(paint(192, 192, [], seed=1, glass_from=0))
    assert not blank(paint(192, 192, [], seed=1))
    assert not blank(paint(192, 192, [Cell(100, 80, 12, 11, 0)], seed=1, glass_from=0))
    noise = np.random.default_rng(0).normal(0, 4, (192, 192, 3))
    assert blank(np.clip(np.array(GROUND) + noise, 0, 255).astype(np.uint8))
    assert min(GLASS) > max(GROUND)  # what the test calls glass is lighter than tissue


def test_an_object_on_two_tiles_is_one():
    first, second = Point(175, 50).buffer(12), Point(175.6, 50.4).buffer(12.2)
    other = Point(60, 60).buffer(10)
    found = merge(
        [Found(first, 0.8, LEFT, False), Found(second, 0.9, RIGHT, False), Found(other, 0.7, LEFT, False)]
    )
    assert [item.area for item in found] == [second, other]


def test_the_whole_object_counts_and_not_its_part():
    whole = Point(195, 50).buffer(20)
    part = whole.intersection(LEFT)
    (item,) = merge([Found(part, 0.95, LEFT, True), Found(whole, 0.8, RIGHT, False)])
    assert item.area == whole


def test_an_object_larger_than_the_overlap_is_joined_without_a_seam():
    band = box(20, 80, 330, 120).buffer(8)
    (item,) = merge(
        [Found(band.intersection(LEFT), 0.9, LEFT, True), Found(band.intersection(RIGHT), 0.7, RIGHT, True)]
    )
    assert iou(item.area, band) == pytest.approx(1)
    assert 0.7 < item.quality < 0.9


def test_neighbours_that_touch_stay_apart():
    # Both end at their tile's border, and they share a strip of the overlap, but little of it.
    first, second = box(120, 20, 200, 100), box(150, 96, 280, 180)
    found = merge([Found(first, 0.9, LEFT, True), Found(second, 0.8, RIGHT, True)])
    assert [item.area for item in found] == [first, second]


def test_nothing_stays_nothing():
    assert merge([]) == []
