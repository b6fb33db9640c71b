import itertools

import pytest

from lib.errors import PromptError
from lib.prompts.parsing.shapes import MAX_BOXES


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
