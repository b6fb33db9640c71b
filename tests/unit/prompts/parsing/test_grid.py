import numpy as np
import pytest

from lib.errors import PromptError


def points_of(prompts):
    return [point.ijk for point in prompts.objects[0].points]


def test_slices_are_along_the_third_axis_unless_asked(parse):
    request = {"foreground": [[10, 20, 3]]}
    assert parse(request).axis == 2
    assert parse({**request, "axis": None}).axis == 2
    assert parse({**request, "axis": 0}).slices == (10,)
    assert parse({**request, "axis": 1}).slices == (20,)


def test_points_stay_voxel_indices_along_another_axis(parse):
    prompts = parse({"foreground": [[10, 20, 3]], "axis": 0}, mode="slice")
    assert prompts.slices == (10,)
    assert prompts.frames(prompts.objects[0])[10].points.tolist() == [[20, 3]]


def test_points_without_a_slice_are_in_plane_along_another_axis(parse):
    prompts = parse({"foreground": [[20, 3]], "axis": 0, "slice": 10}, mode="slice")
    assert points_of(prompts) == [(10, 20, 3)]


@pytest.mark.parametrize("axis", [3, -1, 0.5, "2", True, [2], float("nan")])
def test_axis_is_0_1_or_2(parse, axis):
    with pytest.raises(PromptError, match=r"axis is .*; expected 0, 1 or 2"):
        parse({"foreground": [[1, 1, 1]], "axis": axis})


def test_a_2d_image_has_no_other_axis(parse_2d):
    with pytest.raises(PromptError, match="2-D"):
        parse_2d({"foreground": [[1, 1]], "axis": 0})


def test_location_is_taken_off_points_and_boxes(parse_2d):
    request = {"foreground": [[105, 207]], "roi": [101, 202, 110, 212], "location": [100, 200]}
    prompts = parse_2d(request)
    assert points_of(prompts) == [(5, 7, 0)]
    assert prompts.objects[0].boxes[0].in_plane(2) == (1, 2, 10, 12)


@pytest.mark.parametrize("location", [None, [], [0, 0], [-1, -1]])
def test_no_location(parse_2d, location):
    assert points_of(parse_2d({"foreground": [[5, 7]], "location": location})) == [(5, 7, 0)]


def test_location_leaves_the_slice_alone(parse):
    assert points_of(parse({"foreground": [[15, 27, 3]], "location": [10, 20]})) == [(5, 7, 3)]


@pytest.mark.parametrize("location", [[1], [1, 2, 3], "here", [1, "2"], 7])
def test_location_is_a_pair(parse, location):
    with pytest.raises(PromptError, match="location"):
        parse({"foreground": [[1, 1, 1]], "location": location})


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ([64, 5, 5], "its i is 64, allowed are 0 to 63"),
        ([5, 48, 5], "its j is 48, allowed are 0 to 47"),
        ([5, 5, 10], "its k is 10, allowed are 0 to 9"),
        ([-1, 5, 5], "its i is -1"),
        ([5, 5, -1], "its k is -1"),
        ([5, 5, 1e300], "its k is 1e"),
    ],
)
@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
def test_a_point_outside_is_refused_with_the_limits(parse, mode, point, reason):
    with pytest.raises(PromptError, match=rf"foreground\[1\] = \[.*\] is outside the image: {reason}"):
        parse({"foreground": [[5, 5, 5], point]}, mode=mode)


def test_slices_are_rounded_and_places_on_a_slice_are_kept(parse):
    assert points_of(parse({"foreground": [[10.25, 20.75, 3.4]]})) == [(10.25, 20.75, 3)]


def test_a_place_between_the_last_centre_and_the_edge_is_in_the_image(parse_2d):
    assert points_of(parse_2d({"foreground": [[29.7, 19.9], [-0.4, 0]]})) == [(29, 19, 0), (0, 0, 0)]


def affine(spacing=(1, 1, 1), origin=(0, 0, 0)):
    result = np.diag([*spacing, 1.0])
    result[:3, 3] = origin
    return result


@pytest.mark.parametrize("index", [10, 99, -1])
@pytest.mark.parametrize("prompt", [{"foreground": [[1, 2]]}, {"roi": [1, 2, 11, 12]}])
@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
def test_a_slice_that_does_not_exist_is_refused(parse, mode, prompt, index):
    with pytest.raises(
        PromptError, match=f"slice is {index}, but the image has 10 slices along axis 2, 0 to 9"
    ):
        parse({**prompt, "slice": index}, mode=mode)


@pytest.mark.parametrize("value", ["4", True, [4], float("nan"), {}])
def test_slice_is_a_number(parse, value):
    with pytest.raises(PromptError, match="slice is"):
        parse({"foreground": [[1, 2, 3]], "slice": value})


def test_a_points_own_slice_counts_before_the_requests(parse):
    for value in (None, 5, 99):
        assert parse({"foreground": [[1, 2, 3]], "slice": value}, mode="slice").slices == (3,)


def test_a_2d_image_needs_no_slice_and_has_no_other(parse_2d):
    assert parse_2d({"foreground": [[1, 2]]}).slices == (0,)
    assert parse_2d({"foreground": [[1, 2]], "slice": 0}).slices == (0,)
    with pytest.raises(PromptError, match="slice is 3, but the image has one slice, 0"):
        parse_2d({"foreground": [[1, 2]], "slice": 3})


@pytest.mark.parametrize(
    ("origin", "spacing", "offset", "index"),
    [
        (-60.0, 5.0, 25, 7),  # slice 7 is at -25 mm, whose sign Slicer leaves out
        (100.0, 2.5, 115, 6),
        (100.0, -2.5, 85, 6),
        (0.0, 1.0, 6, 6),
    ],
)
def test_slice_beside_a_roi_of_six_is_slicers_offset_in_millimetres(parse, origin, spacing, offset, index):
    request = {"foreground": [], "background": [], "roi": [20, 10, 12, 5, 2, 8], "slice": offset}
    grid = affine((-0.7, -0.7, spacing), (30, 40, origin))
    assert parse(request, mode="slice", affine=grid).slices == (index,)


def test_millimetres_win_over_an_index_inside_the_roi(parse):
    request = {"roi": [20, 10, 12, 5, 0, 9], "slice": 8}
    assert parse(request, mode="slice", affine=affine((1, 1, 4))).slices == (2,)


def test_an_index_inside_the_roi_counts_where_millimetres_lie_outside(parse):
    request = {"roi": [20, 10, 12, 5, 0, 9], "slice": 8}
    assert parse(request, mode="slice", affine=affine(origin=(0, 0, 500))).slices == (8,)


@pytest.mark.parametrize("value", [None, 47, 1e9, -1e300])
def test_the_rois_middle_slice_counts_where_slice_says_nothing(parse, value):
    prompts = parse({"roi": [20, 10, 12, 5, 2, 8], "slice": value}, mode="slice")
    assert prompts.slices == (5,)


def test_slice_range_bounds_a_propagation(parse):
    assert parse({"foreground": [[1, 2, 3]], "slice_range": [2, 5]}).slice_range == (2, 5)
    assert parse({"foreground": [[1, 2, 3]], "slice_range": [0, 10]}, mode="multi").slice_range == (0, 10)


@pytest.mark.parametrize("value", [None, []])
def test_no_slice_range(parse, value):
    assert parse({"foreground": [[1, 2, 3]], "slice_range": value}).slice_range is None


@pytest.mark.parametrize("value", [[5, 5], [6, 5], [-1, 5], [0, 11], [3], [1, 2, 3], "2-5", [1, "5"], 4])
def test_a_wrong_slice_range_is_refused(parse, value):
    with pytest.raises(PromptError, match="slice_range"):
        parse({"foreground": [[1, 2, 3]], "slice_range": value})


def test_positive_points_lie_in_the_slice_range(parse):
    with pytest.raises(PromptError, match="is on slice 7, outside the slices 2 to 4"):
        parse({"foreground": [[1, 2, 3], [1, 2, 7]], "slice_range": [2, 5]})


def test_negative_points_outside_the_slice_range_are_left_out(parse):
    request = {"foreground": [[1, 2, 3]], "background": [[1, 2, 4], [1, 2, 7]], "slice_range": [2, 5]}
    assert parse(request).slices == (3, 4)


def test_boxes_lie_in_the_slice_range(parse):
    with pytest.raises(PromptError, match=r"boxes\[0\] lies outside the slices 2 to 4"):
        parse({"boxes": [[1, 2, 11, 12, 7]], "slice_range": [2, 5]})
