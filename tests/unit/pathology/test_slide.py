"""Regions of a picture: columns and rows, resolution, what lies outside."""

from pathlib import Path

import numpy as np
import pytest

from lib.errors import ImageTooLargeError
from lib.images.medical_image import LPS_IDENTITY, Voxels, make_image
from lib.pathology.slide import Picture, Slide


def picture(pixels, **place):
    """A picture of pixels (H, W) or (H, W, 3)."""
    array = pixels.swapaxes(0, 1)[:, :, None]
    return Picture(make_image(Voxels(array, LPS_IDENTITY, is_2d=True), Path("a.png"), "raster"), **place)


class Endless(Slide):
    """Of any size, and all black."""

    def _read(self, x, y, level, columns, rows):
        return np.zeros((rows, columns, 3), np.uint8)


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 255, (30, 50, 3)).astype(np.uint8)


def test_a_region_is_at_its_column_and_row(colours):
    slide = picture(colours)
    assert (slide.width, slide.height) == (50, 30)
    assert np.array_equal(slide.read(40, 5, 6, 20), colours[5:25, 40:46])


def test_outside_it_is_white(colours):
    slide = picture(colours)
    region = slide.read(-2, 28, 5, 4)
    assert np.array_equal(region[:2, 2:], colours[28:, :3])
    assert (region[2:] == 255).all()
    assert (region[:, :2] == 255).all()
    assert (slide.read(200, 200, 4, 4) == 255).all()


def test_a_coarser_scale_averages(colours):
    region = picture(colours).read(10, 8, 20, 12, scale=2)
    blocks = colours[8:20, 10:30].reshape(6, 2, 10, 2, 3).mean(axis=(1, 3))
    assert region.shape == (6, 10, 3)
    assert np.abs(region - blocks).max() <= 1


def test_greys_of_16_bits_become_levels():
    greys = np.linspace(1000, 9000, 600, dtype=np.uint16).reshape(20, 30)
    region = picture(greys).read(0, 0, 30, 20)
    assert region.dtype == np.uint8
    assert region.shape == (20, 30, 3)
    assert region[0, 0, 0] < 10
    assert region[-1, -1, 2] > 245


def test_a_region_that_another_server_cut_out_keeps_its_place(colours):
    slide = picture(colours, x=1000, y=2000)
    assert (slide.width, slide.height) == (1050, 2030)
    assert np.array_equal(slide.read(1040, 2005, 6, 20), colours[5:25, 40:46])
    assert (slide.read(0, 0, 4, 4) == 255).all()


def test_a_region_too_large_for_the_memory_is_refused():
    slide = Endless(100_000, 100_000, (1.0, 4.0))
    assert slide.read(0, 0, 16_000, 16_000, scale=4).shape == (4000, 4000, 3)
    with pytest.raises(ImageTooLargeError, match="20000 x 20000 pixels takes 25000000 pixels of level 1"):
        slide.read(0, 0, 20_000, 20_000, scale=8)
