"""One class in many pieces is many objects, in a 2-D image."""

import numpy as np
import pytest
from scipy import ndimage

from lib.errors import LabelError
from lib.labels import instances, read_labels
from lib.labels.instances import split_instances


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
    monkeypatch.setattr(instances, "MOST_OBJECTS", 2)
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
