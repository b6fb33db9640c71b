"""Labels as pictures."""

import numpy as np
import pytest
from PIL import Image

from lib.errors import LabelError
from lib.labels import read_labels

PIXELS = np.zeros((6, 9), np.uint8)  # rows, columns
PIXELS[4, 1:3], PIXELS[0, 8] = 7, 2


def expected(values=PIXELS):
    return values.T[:, :, None]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
def test_greys_are_values(picture, tmp_path, suffix):
    Image.fromarray(PIXELS).save(tmp_path / f"a{suffix}")
    found = read_labels(tmp_path / f"a{suffix}", picture(9, 6))
    np.testing.assert_array_equal(found.array, expected())
    assert found.names == {2: "label_2", 7: "label_7"}


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_greys(picture, tmp_path, dtype):
    deep = PIXELS.astype(dtype) * 1000
    Image.fromarray(deep).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif", picture(9, 6)).array, expected(deep))


def test_one_bit(picture, tmp_path):
    Image.fromarray(PIXELS > 0).save(tmp_path / "a.png")
    assert np.count_nonzero(read_labels(tmp_path / "a.png", picture(9, 6)).array) == 3


def test_greys_that_were_saved_as_colours(picture, tmp_path):
    Image.fromarray(PIXELS).convert("RGB").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", picture(9, 6)).array, expected())


def test_a_palette_of_colours_stands_for_its_indices(picture, tmp_path):
    """As in the datasets of PASCAL VOC."""
    saved = Image.fromarray(PIXELS).convert("P")
    saved.putpalette([0, 0, 0, *[128, 0, 0], *[0, 128, 0], *[9, 9, 9] * 4, *[64, 0, 128]])
    saved.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", picture(9, 6)).array, expected())


def test_a_palette_of_greys_stands_for_the_greys(picture, tmp_path):
    """What a tool makes that shrinks files: here index 0 is white, the object."""
    saved = Image.fromarray((PIXELS == 0).astype(np.uint8)).convert("P")
    saved.putpalette([255, 255, 255, 0, 0, 0])
    saved.save(tmp_path / "a.png")
    found = read_labels(tmp_path / "a.png", picture(9, 6))
    np.testing.assert_array_equal(found.array > 0, expected() > 0)


def test_colours_are_classes(picture, tmp_path):
    """As CVAT saves them."""
    colours = np.zeros((6, 9, 3), np.uint8)
    colours[PIXELS == 7], colours[PIXELS == 2] = (250, 50, 83), (0, 128, 255)
    Image.fromarray(colours).save(tmp_path / "a.png")
    found = read_labels(tmp_path / "a.png", picture(9, 6))
    assert found.names == {1: "#0080ff", 2: "#fa3253"}
    np.testing.assert_array_equal(found.array == 2, expected() == 7)
    np.testing.assert_array_equal(found.array == 1, expected() == 2)


def test_what_is_transparent_is_background(picture, tmp_path):
    colours = np.full((6, 9, 4), 255, np.uint8)
    colours[..., 3] = np.where(PIXELS > 0, 255, 0)
    Image.fromarray(colours).save(tmp_path / "a.png")
    found = read_labels(tmp_path / "a.png", picture(9, 6))
    np.testing.assert_array_equal(found.array > 0, expected() > 0)


def test_a_photograph_is_refused(picture, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    with pytest.raises(LabelError, match=r"a\.png: it is a picture of 2000 colours and 255 classes"):
        read_labels(tmp_path / "a.png", picture(50, 40))


def test_a_jpeg_is_refused(picture, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    with pytest.raises(LabelError, match=r"a\.jpg: it is a JPEG, .*save it as PNG"):
        read_labels(tmp_path / "a.jpg", picture(9, 6))


@pytest.mark.parametrize("size", [(6, 9), (9, 7), (18, 12)])
def test_a_picture_of_another_size_is_refused(picture, tmp_path, size):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(LabelError, match=rf"a\.png: it is 9 x 6 x 1 and its image {size[0]} x {size[1]} x 1"):
        read_labels(tmp_path / "a.png", picture(*size))


def test_a_picture_for_a_volume_is_refused(image, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(LabelError, match="it is 9 x 6 x 1 and its image 9 x 6 x 5"):
        read_labels(tmp_path / "a.png", image(np.eye(4), (9, 6, 5)))


def test_an_empty_picture_says_that_there_is_nothing(picture, tmp_path):
    Image.fromarray(PIXELS * 0).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png", picture(9, 6)).names == {}


def test_a_stack_of_pages_is_refused(picture, tmp_path):
    page = Image.fromarray(PIXELS)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(LabelError, match=r"a\.tif: the file is a stack of 3 pages"):
        read_labels(tmp_path / "a.tif", picture(9, 6))
