"""Pictures: columns first, depth kept, colours as they are."""

import numpy as np
import pytest
from PIL import Image

from lib.errors import ImageError
from lib.images.raster import read_raster

MANY = 10**9


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_pixel_off_the_diagonal_is_at_its_column_and_row(tmp_path, suffix, mode):
    # 30 columns, 20 rows: the peer fed such a picture with columns and rows exchanged.
    picture = Image.new(mode, (30, 20))
    picture.paste("white", (24, 8, 32, 16))
    picture.save(tmp_path / f"a{suffix}")
    found = read_raster(tmp_path / f"a{suffix}", MANY)
    assert found.is_2d
    assert found.array.shape == ((30, 20, 1) if mode == "L" else (30, 20, 1, 3))
    assert (found.array[26, 10] > 200).all()
    assert (found.array[10, 16] < 50).all()
    assert found.array.dtype == np.uint8


def test_16_bit_greys_keep_their_depth(tmp_path):
    greys = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    for suffix in (".png", ".tif"):
        Image.fromarray(greys).save(tmp_path / f"a{suffix}")
        found = read_raster(tmp_path / f"a{suffix}", MANY).array
        assert np.array_equal(found[:, :, 0], greys.T)
        assert found.dtype == np.uint16


def test_float_greys_keep_their_values(tmp_path):
    greys = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(greys).save(tmp_path / "a.tif")
    assert np.array_equal(read_raster(tmp_path / "a.tif", MANY).array[:, :, 0], greys.T)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, [255]),
        ("LA", (90, 30), [90]),
        ("RGBA", (10, 20, 30, 40), [10, 20, 30]),
        ("P", None, [0, 0, 0]),
        ("PA", None, [0, 0, 0]),
    ],
)
def test_other_modes_become_grey_or_colours(tmp_path, mode, value, expected):
    picture = Image.new(mode, (4, 3)) if value is None else Image.new(mode, (4, 3), value)
    suffix = ".tif" if mode == "PA" else ".png"
    picture.save(tmp_path / f"a{suffix}")
    assert np.atleast_1d(read_raster(tmp_path / f"a{suffix}", MANY).array[1, 2, 0]).tolist() == expected


def test_a_palette_gives_its_colours(tmp_path):
    picture = Image.new("RGB", (6, 4), (200, 30, 60)).convert("P", palette=Image.Palette.ADAPTIVE)
    picture.save(tmp_path / "a.png")
    assert read_raster(tmp_path / "a.png", MANY).array[0, 0, 0].tolist() == [200, 30, 60]


def test_an_exif_orientation_is_not_applied(tmp_path):
    picture = Image.new("L", (30, 20))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert read_raster(tmp_path / "a.jpg", MANY).array.shape == (30, 20, 1)


def test_a_stack_of_pages_is_refused_and_a_thumbnail_is_not(tmp_path):
    page, thumbnail = Image.new("L", (30, 20)), Image.new("L", (3, 2))
    page.save(tmp_path / "stack.tif", save_all=True, append_images=[page, page])
    with pytest.raises(ImageError, match="stack of 3 pages"):
        read_raster(tmp_path / "stack.tif", MANY)
    page.save(tmp_path / "pyramid.tif", save_all=True, append_images=[thumbnail])
    assert read_raster(tmp_path / "pyramid.tif", MANY).array.shape == (30, 20, 1)
