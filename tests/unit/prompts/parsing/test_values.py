import numpy as np
import pytest

from lib.errors import PromptError
from lib.prompts.fields import flag, number, sequence, shown, vector, whole


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int64(3)])
def test_numbers_of_any_kind(value):
    assert number(value, "slice") == 3.0


@pytest.mark.parametrize(
    "value", ["3", True, np.True_, None, float("nan"), float("inf"), 10**400, [3], {"x": 3}]
)
def test_a_number_is_refused_with_its_field_and_value(value):
    with pytest.raises(PromptError) as error:
        number(value, "slice")
    assert str(error.value) == f"slice is {shown(value)}; expected a finite number."


@pytest.mark.parametrize(("value", "rounded"), [(2.4, 2), (2.5, 3), (3.5, 4), (-0.5, 0), (-0.6, -1)])
def test_whole_numbers_round_halves_up(value, rounded):
    assert whole(value, "slice") == rounded


@pytest.mark.parametrize("value", [True, np.True_, 1])
def test_yes(value):
    assert flag(value, "fill_holes") is True


@pytest.mark.parametrize("value", ["false", "", None, 2, 0.5, [], [True], float("nan")])
def test_what_is_neither_yes_nor_no_is_refused(value):
    assert flag(False, "fill_holes") is False
    with pytest.raises(PromptError, match=r"fill_holes is .*; expected true or false"):
        flag(value, "fill_holes")


def test_none_is_an_empty_list_and_an_array_is_a_list():
    assert sequence(None, "foreground", "points") == []
    assert sequence(np.array([[1, 2]]), "foreground", "points") == [[1, 2]]


@pytest.mark.parametrize("value", ["[]", 5, {"a": 1}, True])
def test_what_is_no_list_is_refused(value):
    with pytest.raises(PromptError, match=r"foreground is .*; expected points"):
        sequence(value, "foreground", "points")


@pytest.mark.parametrize("value", [[1, 2, 3, 4], [], [[1, 2]], [{"x": 1}, 2], "ab"])
def test_a_vector_of_another_length_is_refused(value):
    with pytest.raises(PromptError, match="expected two numbers"):
        vector(value, "location", (2,), "two numbers")


def test_the_wrong_entry_of_a_vector_is_named():
    with pytest.raises(PromptError, match=r"location\[1\] is '4'; expected a finite number"):
        vector([1, "4"], "location", (2,), "two numbers")


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 10**6,
        lambda: list(range(10**6)),
        lambda: 10**5000,
        lambda: [[[[[[[[1]]]]]]]],
        lambda: {"k": "v" * 10**6},
    ],
    ids=["text", "list", "integer", "nested", "dict"],
)
def test_a_shown_value_is_short(make):
    assert len(shown(make())) < 100
