import itertools

import pytest

from lib.errors import PromptError
from lib.prompts.fields import MAX_BOXES, MAX_POINTS


def box_of(prompts):
    (box,) = prompts.objects[0].boxes
    return box


@pytest.mark.parametrize("corners", [[5, 2, 20, 12], [20, 12, 5, 2], [20, 2, 5, 12], [[5, 2], [20, 12]]])
def test_roi_of_four_is_two_corners_in_any_order(parse_2d, corners):
    box = box_of(parse_2d({"roi": corners}))
    assert (box.lower, box.upper) == ((5, 2, 0), (20, 12, 1))


@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_roi_of_six_is_a_pair_for_each_axis_in_any_order(parse, flips):
    pairs = [(10, 20), (5, 12), (0, 9)]
    roi = [value for pair, flip in zip(pairs, flips, strict=True) for value in sorted(pair, reverse=flip)]
    prompts = parse({"roi": roi})
    assert box_of(prompts).in_plane(2) == (10, 5, 20, 12)
    assert prompts.slice_range == (0, 10)
    assert prompts.slices == (4,)


def test_roi_of_slicer_as_the_peer_misread_it(parse):
    prompts = parse({"roi": [20, 10, 12, 5, 0, 9]}, mode="slice")
    assert prompts.frames(prompts.objects[0])[4].box.tolist() == [10, 5, 20, 12]


@pytest.mark.parametrize(
    ("axis", "box", "bound"), [(0, [5, 0, 12, 9], (10, 21)), (1, [10, 0, 20, 9], (5, 13))]
)
def test_roi_of_six_along_another_axis(parse, axis, box, bound):
    prompts = parse({"roi": [10, 20, 5, 12, 0, 9], "axis": axis})
    (frame,) = prompts.frames(prompts.objects[0]).values()
    assert frame.box.tolist() == box
    assert prompts.slice_range == bound


def test_roi_partly_outside_is_cut_off(parse):
    prompts = parse({"roi": [-30, 20, 100, 5, -4, 30]})
    assert box_of(prompts).in_plane(2) == (0, 5, 20, 48)
    assert prompts.slice_range == (0, 10)


def test_roi_on_one_slice(parse):
    assert parse({"roi": [10, 20, 5, 12, 3, 3]}).slice_range == (3, 4)


@pytest.mark.parametrize(
    "roi",
    [
        [70, 90, 5, 12, 0, 9],
        [64, 90, 5, 12, 0, 9],
        [-9, 0, 5, 12, 0, 9],
        [10, 20, 48, 60, 0, 9],
        [10, 20, 5, 12, 10, 20],
        [10, 20, 5, 12, -9, -1],
    ],
)
@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
def test_roi_wholly_outside_is_refused(parse, mode, roi):
    with pytest.raises(PromptError, match="roi is outside the image"):
        parse({"roi": roi}, mode=mode)


@pytest.mark.parametrize("roi", [[10, 10, 5, 12, 0, 9], [10, 20, 5, 5, 0, 9], [5, 2, 5, 12], [5, 2, 20, 2]])
def test_roi_without_area_is_refused(parse, roi):
    with pytest.raises(PromptError, match="roi has no area"):
        parse({"roi": roi, "slice": 4})


@pytest.mark.parametrize(
    "roi", [[1], [1, 2, 3], [1, 2, 3, 4, 5], [1] * 7, [[1, 2, 3], [4, 5, 6]], "1,2,3,4", 7, {}]
)
@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
def test_roi_of_another_length_is_refused(parse, mode, roi):
    with pytest.raises(PromptError, match=r"roi is .*; expected .*x0, y0, x1, y1.*, or pairs"):
        parse({"roi": roi, "slice": 4}, mode=mode)


@pytest.mark.parametrize("value", ["3", None, float("nan"), True])
def test_roi_of_something_else_than_numbers_is_refused(parse, value):
    with pytest.raises(PromptError, match=r"roi\[2\] is .*; expected a finite number"):
        parse({"roi": [1, 2, value, 4], "slice": 4})


@pytest.mark.parametrize("key", ["roi", "box", "boxes"])
@pytest.mark.parametrize("nothing", [None, []])
def test_no_box(parse, key, nothing):
    assert parse({"foreground": [[1, 2, 3]], key: nothing}).objects[0].boxes == ()


def test_a_box_without_a_slice_needs_one_in_a_volume(parse):
    for mode in ("slice", "volume", "multi"):
        with pytest.raises(PromptError, match="roi does not say its slice"):
            parse({"roi": [5, 2, 20, 12]}, mode=mode)
        assert parse({"roi": [5, 2, 20, 12], "slice": 4}, mode=mode).slices == (4,)


def test_a_box_without_a_slice_is_on_that_of_the_last_point(parse):
    for mode in ("slice", "volume", "multi"):
        prompts = parse({"roi": [5, 2, 20, 12], "foreground": [[10, 5, 6]], "slice": 4}, mode=mode)
        assert prompts.slices == (6,)


def test_boxes_are_on_slices_of_their_own(parse):
    prompts = parse({"boxes": [[5, 2, 20, 12, 3], None, [20, 12, 6, 3, 7]]})
    frames = prompts.frames(prompts.objects[0])
    assert {index: frame.box.tolist() for index, frame in frames.items()} == {
        3: [5, 2, 20, 12],
        7: [6, 3, 20, 12],
    }
    assert prompts.slice_range is None


def test_box_is_one_of_boxes(parse):
    assert parse({"box": [5, 2, 20, 12, 3]}).slices == (3,)
    assert parse({"box": [5, 2, 20, 12], "slice": 4}).slices == (4,)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"boxes": [[5, 2, 20, 12, 10]]}, r"boxes\[0\] is on slice 10, but the image has 10 slices"),
        ({"boxes": [[5, 2, 20]]}, r"boxes\[0\] is \[5, 2, 20\]; expected \[x0"),
        ({"boxes": [5, 2, 20, 12]}, r"boxes\[0\] is 5"),
        ({"boxes": "all"}, "boxes is 'all'; expected a list of boxes"),
        ({"boxes": {"liver": []}}, "boxes is .*; expected a list of boxes"),
        ({"box": [1, 2, 3, 4, 5, 6]}, "box is"),
        ({"boxes": [[5, 2, 20, 12, 3]] * 2}, "two boxes on slice 3"),
        ({"boxes": [[5, 2, 20, 12, 3]] * (MAX_BOXES + 1)}, "at most 1000"),
    ],
)
def test_wrong_boxes_are_refused(parse, request_, reason):
    with pytest.raises(PromptError, match=reason):
        parse(request_)


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
