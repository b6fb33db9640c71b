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
    assert prompts.slice_hint == 10
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
