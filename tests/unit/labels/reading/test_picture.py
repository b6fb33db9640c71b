"""Pictures as labels, and their separate pieces as objects."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lib.errors import LabelError
from lib.labels import reading
from lib.labels.reading import read_labels, split_instances

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


def test_a_stack_of_pages_is_the_label_of_a_volume(picture, image, tmp_path):
    pages = [Image.fromarray(np.roll(PIXELS, shift, 0)) for shift in range(3)]
    stack = image(np.eye(4), (9, 6, 3), file_format="raster")
    for compression in ("raw", "tiff_lzw"):
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
        found = read_labels(tmp_path / "a.tif", stack).array
        np.testing.assert_array_equal(found.transpose(2, 1, 0), [np.asarray(page) for page in pages])
    with pytest.raises(LabelError, match=r"it is 9 x 6 x 3 and its image 9 x 6 x 1"):
        read_labels(tmp_path / "a.tif", picture(9, 6))


def cells(*corners, size=6, shape=(80, 60)):
    array = np.zeros((*shape, 1), np.uint8)
    for x, y in corners:
        array[x : x + size, y : y + size - 1] = 1
    return array


THREE = ((2, 40), (30, 5), (60, 22))


def test_three_pieces_are_three_objects_of_one_class(picture, nifti):
    array = cells(*THREE) * 255
    found = read_labels(nifti(array), picture(80, 60), [{"name": "cell", "idx": 1}])
    assert found.names == {1: "cell", 2: "cell", 3: "cell"}
    assert sorted(np.unique(found.array, return_counts=True)[1].tolist()) == [30, 30, 30, 80 * 60 - 90]
    np.testing.assert_array_equal(found.array > 0, array > 0)
    assert len({int(found.array[x, y, 0]) for x, y in THREE}) == 3
    assert not found.array.flags.writeable


def test_two_pieces_are_one_object():
    assert split_instances(cells(*THREE[:2])) is None


def test_specks_are_no_pieces():
    array = cells(*THREE)
    array[70, 50], array[72:74, 55], array[40, 30:33] = 1, 1, 1
    found = split_instances(array)
    assert np.unique(found).tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found > 0, cells(*THREE) > 0)
    two = cells(*THREE[:2])
    two[70, 50], two[72, 55] = 1, 1
    assert split_instances(two) is None


def test_specks_are_measured_by_the_typical_piece():
    array = cells((2, 2), (150, 10), (20, 150), size=110, shape=(300, 300))
    array[290:298, 290] = 1  # 8 pixels, beside pieces of 11,990
    assert np.unique(split_instances(array)).tolist() == [0, 1, 2, 3]


def test_pieces_that_touch_by_a_corner_are_two():
    array = cells((10, 10), (16, 15), (40, 40))
    assert np.unique(split_instances(array)).tolist() == [0, 1, 2, 3]


def test_more_than_255_pieces():
    array = np.zeros((160, 160, 1), np.uint8)
    array[np.arange(160) % 8 < 3, :, 0] = 1
    array[:, np.arange(160) % 8 >= 3] = 0
    found = split_instances(array)
    assert found.dtype == np.uint16
    assert found.max() == ndimage.label(array[..., 0])[1] == 400


def test_more_pieces_than_16_bits_hold_are_refused(monkeypatch):
    monkeypatch.setattr(reading, "MOST_OBJECTS", 2)
    with pytest.raises(LabelError, match="it has 3 separate pieces and 2 objects are the limit"):
        split_instances(cells(*THREE))


def test_values_are_objects_however_many_pieces_they_have(picture, nifti):
    array = cells(*THREE)
    array[60:] *= 2
    assert read_labels(nifti(array), picture(80, 60)).names == {1: "label_1", 2: "label_2"}


def test_a_volume_is_never_split_nor_is_one_of_one_slice(image, nifti):
    array = cells(*THREE)
    one_slice = image(np.eye(4), array.shape)
    assert read_labels(nifti(array, np.eye(4)), one_slice).names == {1: "label_1"}
    deep = np.repeat(array, 5, axis=2)
    assert read_labels(nifti(deep, np.eye(4)), image(np.eye(4), deep.shape)).names == {1: "label_1"}
