import numpy as np
import pytest

from benchmarks.overlap import dice


def test_half_of_each_in_common_is_one_half():
    first, second = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    first[0, :2] = second[0, 1:3] = True
    assert dice(first, second) == 0.5


def test_equal_masks_and_two_empty_ones_are_one():
    empty = np.zeros((3, 3), bool)
    assert dice(empty, empty) == 1.0
    assert dice(~empty, ~empty) == 1.0
    assert dice(empty, ~empty) == 0.0


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        dice(np.ones((2, 3), bool), np.ones((3, 2), bool))
