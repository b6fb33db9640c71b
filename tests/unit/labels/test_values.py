"""Values of labels: whole, in the smallest type; and the order in which overlapping objects are painted."""

import numpy as np
import pytest

from lib.errors import LabelError
from lib.labels.values import as_labels, paint_order, present_values


def test_labels_of_every_type_are_the_same_bytes():
    for dtype in [np.uint8, np.int8, np.int16, ">i4", np.int64, np.uint64, np.float32, ">f8"]:
        array = np.array([[0, 3], [7, 3], [0, 0]]).astype(dtype)
        labels, numbers = as_labels(array)
        assert labels.dtype == np.uint8
        assert labels.flags.f_contiguous
        assert labels.tolist() == [[0, 3], [7, 3], [0, 0]]
        assert numbers == {3: 3, 7: 7}


def test_booleans():
    labels, numbers = as_labels(np.array([False, True]))
    assert (labels.tolist(), numbers) == ([0, 1], {1: 1})


@pytest.mark.parametrize(("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_the_smallest_type_that_holds_them(highest, dtype):
    labels, numbers = as_labels(np.array([0, highest], dtype=np.int32))
    assert labels.dtype == dtype
    assert numbers == {highest: highest}


@pytest.mark.parametrize("dtype", [np.uint32, np.float64])
def test_values_beyond_16_bits_are_numbered_anew(dtype):
    labels, numbers = as_labels(np.array([[70000, 0, 12], [2_000_000_000, 12, 70000]], dtype=dtype))
    assert labels.tolist() == [[2, 0, 1], [3, 1, 2]]
    assert numbers == {1: 12, 2: 70000, 3: 2_000_000_000}


def test_scale_factors_leave_whole_numbers():
    assert as_labels(np.array([0, 0.99995, 2.0004], np.float32))[0].tolist() == [0, 1, 2]


def test_arrays_of_more_than_one_chunk():
    array = np.zeros((130, 100, 90), np.int32)
    array[129, 99, 89], array[3, 4, 5] = 70000, 9
    labels, numbers = as_labels(array)
    assert numbers == {1: 9, 2: 70000}
    assert np.argwhere(labels).tolist() == [[3, 4, 5], [129, 99, 89]]
    assert labels[129, 99, 89] == 2


def test_what_is_a_label_already_is_not_copied():
    array = np.asfortranarray(np.eye(4, dtype=np.uint8))
    assert np.shares_memory(as_labels(array)[0], array)


WHAT_IS_NO_LABEL_IS_REFUSED = [
    (np.array([0, 1, np.nan]), "NaN or infinite values: replace them by 0"),
    (np.array([0, np.inf]), "NaN or infinite"),
    (np.array([0, 0.37, 1]), r"no whole numbers, such as 0\.37: .*threshold"),
    (np.array([0, -1, 1], np.int16), "negative values, down to -1: 0 is background"),
    (np.array([0.0, -1000.0]), "down to -1000"),
    (np.array([0, 1e30]), r"as far from 0 as 1e\+30: number its labels from 1"),
    (np.array([0, 1j]), "complex128 are no labels"),
    (np.arange(65537), "more than 65535 different values: is it the image"),
]


def test_what_is_no_label_is_refused():
    for array, message in WHAT_IS_NO_LABEL_IS_REFUSED:
        with pytest.raises(LabelError, match=message):
            as_labels(array)


def test_as_many_values_as_16_bits_hold():
    assert present_values(np.arange(65536)) == list(range(1, 65536))


def test_the_smaller_one_and_then_the_later_one_is_on_top():
    assert paint_order([3, 50, 3, 7]) == [1, 3, 0, 2]
    assert paint_order([]) == []
