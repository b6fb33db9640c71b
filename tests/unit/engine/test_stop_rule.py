import math

import pytest

from lib.engine.stop_rule import StopRule


def end_of(areas: list[int]) -> int | None:
    """Position of the first slice that is no longer the object; the first area is where it starts."""
    ending = StopRule(areas[0])
    return next((index for index, area in enumerate(areas[1:], start=1) if ending.reached(area)), None)


def ball(radius: int) -> list[int]:
    return [round(math.pi * (radius**2 - height**2)) for height in range(radius)]


@pytest.mark.parametrize("radius", [3, 5, 10, 40, 200])
def test_a_ball_is_followed_to_its_last_slice_and_ends_with_the_first_empty_one(radius):
    areas = ball(radius)
    assert end_of(areas) is None
    assert end_of([*areas, 0, 0, 0]) is not None


def test_three_empty_slices_are_the_end_and_two_are_a_gap():
    assert end_of([100, 90, 0, 0, 95, 90]) is None
    assert end_of([100, 90, 0, 0, 0]) == 4


def test_what_had_tapered_ends_with_the_first_empty_slice():
    assert end_of([100, 60, 20, 0, 30]) == 3


def test_what_had_tapered_and_grows_again_is_another_object():
    assert end_of([100, 60, 20, 24, 31]) == 4


def test_what_stays_small_is_another_object():
    assert end_of([100, 60, 20, 20, 19, 19]) == 5


def test_a_tube_that_keeps_its_size_or_varies_is_followed():
    assert end_of([40, 38, 44, 30, 25, 45, 40, 12, 40, 41]) is None


def test_an_object_that_grows_from_its_prompt_is_followed_until_it_tapers():
    assert end_of([20, 60, 200, 400, 300, 120, 60, 30, 10]) is None


def test_what_stays_at_less_than_half_of_its_size_is_another_object():
    assert end_of([100, 80, 60, 45, 44, 45, 46]) == 6
    assert end_of([100, 80, 60, 45, 44, 39, 35, 34, 30]) is None
    # In thin slices an object takes more of them to shrink.
    assert end_of([*(area + 2 for area in ball(100)[:80]), *[11300] * 5]) is None
    assert end_of([*(area + 2 for area in ball(100)[:80]), *[11300] * 12]) is not None


def test_an_object_that_was_not_found_on_its_prompted_slice_is_looked_for_beside_it():
    assert end_of([0, 5, 40, 80, 60]) is None
    assert end_of([0, 0, 0, 0]) == 3
