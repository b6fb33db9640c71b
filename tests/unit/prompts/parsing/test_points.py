import pytest

from lib.errors import PromptError
from lib.prompts.parsing.shapes import MAX_POINTS


def points_of(prompts):
    return [(*point.ijk, point.positive) for point in prompts.objects[0].points]


def test_foreground_and_background(parse):
    prompts = parse({"foreground": [[1, 2, 3]], "background": [[4, 5, 6]]})
    assert points_of(prompts) == [(1, 2, 3, True), (4, 5, 6, False)]


@pytest.mark.parametrize("nothing", [None, [], [None, None]])
def test_lists_of_nothing(parse, nothing):
    assert points_of(parse({"foreground": [[1, 2, 3]], "background": nothing})) == [(1, 2, 3, True)]


def test_null_entries_are_left_out(parse):
    assert points_of(parse({"foreground": [None, [1, 2, 3], None]})) == [(1, 2, 3, True)]


def test_points_of_a_2d_image_may_have_two_or_three_coordinates(parse_2d):
    assert points_of(parse_2d({"foreground": [[1, 2], [3, 4, 0]]})) == [(1, 2, 0, True), (3, 4, 0, True)]


def test_a_point_on_another_slice_of_a_2d_image_is_refused(parse_2d):
    with pytest.raises(PromptError, match="its k is 1, allowed are 0 to 0"):
        parse_2d({"foreground": [[3, 4, 1]]})


@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
def test_two_coordinates_need_a_slice_in_a_volume(parse, mode):
    request = {"foreground": [[1, 2]]}
    with pytest.raises(PromptError, match="third coordinate, or `slice`"):
        parse(request, mode=mode)
    assert points_of(parse({**request, "slice": 4}, mode=mode)) == [(1, 2, 4, True)]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([1, 2, 3], r"foreground\[0\] is 1;"),
        ([[1]], r"foreground\[0\] is \[1\];"),
        ([[1, 2, 3, 4]], r"foreground\[0\] is \[1, 2, 3, 4\]"),
        ([[[1, 2, 3]]], r"foreground\[0\]"),
        ([[1, 2, 3], []], r"foreground\[1\] is \[\]"),
        ([[1, 2, "3"]], r"foreground\[0\]\[2\] is '3'; expected a finite number"),
        ([[1, 2, None]], r"foreground\[0\]\[2\] is None"),
        ([[1, True, 3]], r"foreground\[0\]\[1\] is True"),
        ([[1, float("nan"), 3]], r"foreground\[0\]\[1\] is nan"),
        ([[1, float("-inf"), 3]], r"foreground\[0\]\[1\] is -inf"),
        ([{"i": 1, "j": 2, "k": 3}], r"foreground\[0\] is \{'i'"),
        ("[[1, 2, 3]]", r"foreground is '\[\[1, 2, 3\]\]'; expected a list of points"),
        ({"liver": [[1, 2, 3]]}, "foreground is .*; expected a list of points"),
        (5, "foreground is 5"),
    ],
)
@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
def test_what_is_no_list_of_points_is_refused_with_its_place(parse, mode, value, field):
    with pytest.raises(PromptError, match=field):
        parse({"foreground": value}, mode=mode)


def test_background_is_checked_alike(parse):
    with pytest.raises(PromptError, match=r"background\[0\]\[0\] is 'a'"):
        parse({"foreground": [[1, 2, 3]], "background": [["a", 2, 3]]})


def test_points_are_limited(parse):
    assert len(points_of(parse({"foreground": [[1, 2, 3]] * MAX_POINTS}))) == MAX_POINTS
    with pytest.raises(PromptError, match="1001 points; at most 1000"):
        parse({"foreground": [[1, 2, 3]] * (MAX_POINTS + 1)})


def test_vista3d_points_have_labels(parse):
    request = {"points": [[1, 2, 3], [4, 5, 6], [0, 0, 0], None], "point_labels": [1, 0, -1, 1]}
    assert points_of(parse(request)) == [(1, 2, 3, True), (4, 5, 6, False)]


def test_points_without_labels_are_positive(parse):
    assert points_of(parse({"points": [[1, 2, 3]]})) == [(1, 2, 3, True)]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([1, 0], "points has 1 entries and point_labels 2"),
        ([], "points has 1 entries and point_labels 0"),
        ([2], r"point_labels\[0\] is 2; expected 1"),
        (["1"], r"point_labels\[0\] is '1'"),
        ([None], r"point_labels\[0\] is None"),
        ("1", "point_labels is '1'; expected a list"),
    ],
)
def test_point_labels_match_the_points(parse, labels, reason):
    with pytest.raises(PromptError, match=reason):
        parse({"points": [[1, 2, 3]], "point_labels": labels})


def test_labels_without_points_are_refused(parse):
    with pytest.raises(PromptError, match="points has 0 entries and point_labels 1"):
        parse({"point_labels": [1]})
