"""A sample that stands for the whole, and a check that misses nothing."""

import numpy as np
import pytest

from lib.errors import ImageError
from lib.transforms.sampling import (
    CHUNK,
    SAMPLE_SIZE,
    evenly_spaced,
    require_finite,
    seeded_rng,
    sorted_sample,
)


def test_a_small_array_is_taken_whole_and_sorted():
    assert sorted_sample(np.array([[3, 1], [2, 5]])).tolist() == [1, 2, 3, 5]


def test_the_step_hits_every_row_and_column():
    for order in ["C", "F"]:
        for axis in [0, 1, 2]:
            shape = [512, 512, 100]
            ramp = np.zeros(shape, np.int16, order=order)
            ramp += np.arange(shape[axis], dtype=np.int16).reshape([-1 if a == axis else 1 for a in range(3)])
            sample = sorted_sample(ramp)
            assert SAMPLE_SIZE * 0.9 <= sample.size <= SAMPLE_SIZE
            assert np.unique(sample).size == shape[axis]
            assert np.percentile(sample, [0.5, 50, 99.5]) == pytest.approx(
                np.percentile(np.arange(shape[axis]), [0.5, 50, 99.5]), abs=0.01 * shape[axis]
            )


def test_the_same_array_gives_the_same_sample():
    array = np.random.default_rng(0).normal(size=(100, 100, 50))
    assert np.array_equal(sorted_sample(array), sorted_sample(array.copy()))


def test_one_bad_value_is_found_wherever_it_is():
    for position in [0, CHUNK - 1, CHUNK, CHUNK + 7, 2 * CHUNK + 9]:
        for value in [np.nan, np.inf, -np.inf]:
            array = np.zeros(2 * CHUNK + 10, np.float32)
            array[position] = value
            with pytest.raises(ImageError, match="NaN"):
                require_finite(array)


def test_the_error_counts_both_kinds():
    array = np.array([1, np.nan, np.inf, -np.inf, np.nan, np.nan])
    with pytest.raises(ImageError, match="3 NaN and 2 infinite values among 6"):
        require_finite(array)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_finite_arrays_pass(dtype):
    require_finite(np.ones((3, 4), dtype))


def test_evenly_spaced_indices_are_the_middles_of_equal_shares() -> None:
    assert evenly_spaced(0, 3) == []
    assert evenly_spaced(3, 6) == [0, 1, 2]
    assert evenly_spaced(9, 3) == [1, 4, 7]
    assert evenly_spaced(100, 4) == [12, 37, 62, 87]
    assert evenly_spaced(10, 0) == []


def test_a_text_seeds_equal_generators() -> None:
    first, again, other = (seeded_rng(text).random() for text in ("a 1", "a 1", "a 2"))
    assert first == again != other
