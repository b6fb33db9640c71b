"""Slides from files: pyramids through OpenSlide, pictures, and files that were cut off."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from lib.errors import ImageError, ImageNotFoundError, ImageTooLargeError
from lib.images.cache import ImageCache
from lib.pathology.opening import Pyramid, open_slide
from tests.support.slides import APERIO, Cell, paint, write_slide

WIDTH, HEIGHT = 700, 520


@pytest.fixture(scope="module")
def pixels():
    return paint(WIDTH, HEIGHT, [Cell(500, 100, 15, 12, 0.3)], seed=0)


@pytest.fixture
def images():
    return ImageCache(1 << 24, max_voxels=WIDTH * HEIGHT)


@pytest.mark.parametrize(("name", "description"), [("a.tif", ""), ("a.tiff", ""), ("a.svs", APERIO)])
def test_a_pyramid_is_read_by_region(tmp_path, pixels, images, name, description):
    with open_slide(write_slide(tmp_path / name, pixels, description=description), images) as slide:
        assert isinstance(slide, Pyramid)
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert slide.downsamples == pytest.approx((1, 2, 4))
        assert np.array_equal(slide.read(480, 90, 40, 20), pixels[90:110, 480:520])
        quarter = pixels[40:200, 400:600].reshape(40, 4, 50, 4, 3).mean(axis=(1, 3))
        assert np.abs(slide.read(400, 40, 200, 160, scale=4) - quarter).max() <= 1
        # Between two levels: from the finer one.
        assert slide.read(400, 40, 180, 150, scale=3).shape == (50, 60, 3)
    assert images.nbytes == 0, "a pyramid is in nobody's memory"


def test_outside_a_pyramid_is_white(tmp_path, pixels, images):
    with open_slide(write_slide(tmp_path / "a.tif", pixels), images) as slide:
        region = slide.read(WIDTH - 3, HEIGHT - 2, 10, 10)
    assert np.array_equal(region[:2, :3], pixels[-2:, -3:])
    assert (region[2:] == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.bmp"])
def test_a_plain_picture_is_a_slide_too(tmp_path, pixels, images, name):
    Image.fromarray(pixels).save(tmp_path / name)
    with open_slide(tmp_path / name, images) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        error = np.abs(slide.read(480, 90, 40, 20) - pixels[90:110, 480:520].astype(int))
    assert error.mean() < 8


def test_greys_of_16_bits_are_windowed(tmp_path, images):
    greys = np.tile(np.linspace(200, 3800, 512), (256, 1)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", greys, tile=(256, 256), photometric="minisblack")
    with open_slide(tmp_path / "a.tif", images) as slide:
        row = slide.read(0, 100, 512, 1)[0, :, 0]
    assert row[10] < 20
    assert row[500] > 235


def test_a_picture_that_is_no_pyramid_has_a_limit(tmp_path, images):
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(tmp_path / "a.tif")
    with pytest.raises(ImageTooLargeError, match="max_voxels"):
        open_slide(tmp_path / "a.tif", images)


@pytest.mark.parametrize("share", [0.999, 0.9, 0.7, 0.5, 0.2, 0.01, 0.0001])
@pytest.mark.parametrize(("suffix", "description"), [(".tif", ""), (".svs", APERIO)])
def test_a_slide_that_was_cut_off_is_refused(tmp_path, pixels, images, share, suffix, description):
    whole = write_slide(tmp_path / f"whole{suffix}", pixels, description=description).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        ImageError, match=r"^cut.* cannot be read as a slide: .*; copy or export it again$"
    ) as raised:
        open_slide(cut, images)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("suffix", [".tif", ".svs", ".ndpi", ".mrxs"])
def test_garbage_is_refused(tmp_path, images, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no slide " * 1000)
    with pytest.raises(ImageError, match=f"a{suffix}"):
        open_slide(path, images)


def test_damage_inside_a_slide_is_told_when_it_is_met(tmp_path, pixels, images):
    path = write_slide(tmp_path / "a.tif", pixels)
    with tifffile.TiffFile(path) as file:
        start, count = file.pages.first.dataoffsets[-1], file.pages.first.databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)
    with open_slide(path, images) as slide:
        assert slide.read(0, 0, 100, 100).shape == (100, 100, 3)
        with pytest.raises(ImageError, match="cannot be read as a slide"):
            slide.read(WIDTH - 50, HEIGHT - 5, 40, 4)


def test_stacks_and_volumes_are_no_slides(tmp_path, images):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 30, 40), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="stack of 5 pages"):
        open_slide(tmp_path / "a.tif", images)


def test_what_is_not_there(tmp_path, images):
    with pytest.raises(ImageNotFoundError, match=r"gone\.svs"):
        open_slide(tmp_path / "gone.svs", images)
