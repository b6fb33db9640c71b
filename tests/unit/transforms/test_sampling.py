"""A sample that stands for the whole, and a check that misses nothing."""

import numpy as np
import pytest

from lib.errors import ImageError
from lib.transforms.sampling import (
    CHUNK,
    SAMPLE_SIZE,
    doubtful,
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


def test_doubtful_indices_are_spread_and_no_neighbours_of_known_ones() -> None:
    confidence = {0: 0.5, 2: 0.4, 4: 0.0, 5: 0.9, 6: 0.0, 8: 0.7, 10: 0.6}
    # Extent 11, s = 11 / 3, d of 0, 2, 8, 10 is 5, 3, 3, 5: worth 0.5, 0.49, 0.25, 0.4. With 0 chosen 2 has
    # d = 2 and 0.33; with 10 chosen 8 has d = 2 and 0.16. 4 and 6 are neighbours of 5.
    assert doubtful(confidence, [5], 3) == [0, 10, 2]
    # With s = 11 / 4 they are worth 0.5, 0.6, 0.3, 0.4, and then 0 has d = 2 and 0.36.
    assert doubtful(confidence, [5], 4) == [2, 10, 0, 8]
    # Nothing is known: s = 5.5, and 4 is the first of two with no confidence; then 6 has d = 2 and 0.36.
    assert doubtful(confidence, [], 2) == [4, 10]
    assert doubtful({3: 1.0}, [], 4) == doubtful({}, [], 4) == []
    # All equal and s = 5.25: the first with a full d, twice, then d = 5 and d = 4.
    assert doubtful(dict.fromkeys(range(21), 0.5), [10], 4) == [0, 16, 5, 20]


def test_a_text_seeds_equal_generators() -> None:
    first, again, other = (seeded_rng(text).random() for text in ("a 1", "a 1", "a 2"))
    assert first == again != other
