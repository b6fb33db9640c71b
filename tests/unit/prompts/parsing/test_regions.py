import numpy as np
import pytest

from lib.errors import PromptError
from lib.prompts.regions import MAX_REGIONS, MAX_VERTICES, MOST_CLICKS, spread_clicks

SQUARE = [[10, 10], [19, 10], [19, 19], [10, 19]]


def frames(prompts):
    (item,) = prompts.objects
    return prompts.frames(item)


def test_a_scribble_is_clicks_along_it_and_the_pixels_under_it(parse):
    found = frames(parse({"scribbles": [{"slice": 4, "points": [[5, 6], [35, 6]]}]}))[4]
    assert found.labels.all()
    assert 2 <= len(found.points) <= MOST_CLICKS
    assert (found.points[:, 1] == 6).all()
    assert np.ptp(found.points[:, 0]) > 10
    assert sorted(found.known.tolist()) == [[x, 6, 1] for x in range(5, 36)]


def test_a_negative_scribble_needs_something_positive(parse):
    negative = {"slice": 4, "points": [[5, 6], [7, 6]], "positive": False}
    with pytest.raises(PromptError, match="only negative"):
        parse({"scribbles": [negative]})
    found = frames(parse({"scribbles": [negative, {"slice": 4, "points": [[30, 30]]}]}))[4]
    assert sorted(found.known[:, 2].tolist()) == [0, 0, 0, 1]


def test_a_lasso_is_its_inside_and_a_box_around_it(parse):
    found = frames(parse({"lassos": [{"slice": 3, "points": SQUARE}]}))[3]
    assert found.mask.sum() == 100
    assert found.mask[10:20, 10:20].all()
    assert found.box.tolist() == [10, 10, 20, 20]
    assert not len(found.points)


def test_lassos_on_several_slices_are_prompts_on_all_and_two_on_one_are_joined(parse):
    far = [[x + 20, y] for x, y in SQUARE]
    lassos = [{"slice": 2, "points": SQUARE}, {"slice": 2, "points": far}, {"slice": 7, "points": SQUARE}]
    found = frames(parse({"lassos": lassos}))
    assert sorted(found) == [2, 7]
    assert found[2].mask.sum() == 200
    assert found[2].box.tolist() == [10, 10, 40, 20]


def test_inside_a_negative_lasso_is_background(parse):
    found = frames(
        parse({"foreground": [[5, 5, 3]], "lassos": [{"slice": 3, "points": SQUARE, "positive": False}]})
    )
    assert len(found[3].known) == 100
    assert not found[3].known[:, 2].any()
    assert found[3].labels.tolist() == [1, 0]
    assert found[3].mask is None


def test_boxes_with_their_slices(parse):
    found = frames(parse({"boxes": [{"slice": k, "box": [5, 2, 20, 12]} for k in (1, 8)]}))
    assert {k: here.box.tolist() for k, here in found.items()} == {1: [5, 2, 20, 12], 8: [5, 2, 20, 12]}


def test_regions_belong_to_their_label(parse):
    scribbles = [
        {"slice": 1, "points": [[5, 5]], "label": "liver"},
        {"slice": 2, "points": [[9, 9]], "label": "new"},
    ]
    prompts = parse({"scribbles": scribbles, "background": [[1, 1, 1]]}, mode="multi")
    assert prompts.label_names == {"liver": 1, "new": 4}


@pytest.mark.parametrize(
    ("field", "entry", "reason"),
    [
        ("lassos", {"slice": 1, "points": SQUARE[:2]}, "outline needs 3"),
        ("lassos", [1, 2], r"lassos\[0\] is"),
        ("scribbles", {"slice": 1}, "0 points"),
        ("scribbles", {"slice": 99, "points": [[1, 1]]}, "slice is 99"),
        ("scribbles", {"points": [[1, 1]]}, "does not say its slice"),
        ("scribbles", {"slice": 1, "points": [[1, "a"]]}, "finite number"),
        ("scribbles", {"slice": 1, "points": [[1e9, 1]]}, "far outside"),
        ("scribbles", {"slice": 1, "points": [[100, 100]]}, "outside the image"),
        ("scribbles", {"slice": 1, "points": [[1, 1]], "positive": "yes"}, "true or false"),
        ("scribbles", {"slice": 1, "points": [[1, 1]], "label": 3}, "name of a label"),
        ("scribbles", {"slice": 1, "points": [[1, 1]] * (MAX_VERTICES + 1)}, "10001 points"),
        ("boxes", {"slice": 1}, "expected"),
    ],
)
def test_wrong_regions_are_refused_with_a_reason(parse, field, entry, reason):
    with pytest.raises(PromptError, match=reason):
        parse({"foreground": [[1, 1, 1]], field: [entry]})


def test_the_number_of_regions_is_limited(parse):
    with pytest.raises(PromptError, match="at most 200"):
        parse({"scribbles": [{"slice": 1, "points": [[1, 1]]}] * (MAX_REGIONS + 1)})


def label_map():
    array = np.zeros((64, 48, 10), np.uint8)
    array[5:9, 5, 3] = 1
    array[20:24, 20, 3] = 2
    array[30:40, 30:40, 4:6] = 3
    return array


NAMES = {1: "background_scribbles", 2: "foreground_scribbles", 3: "liver"}


def test_scribbles_of_slicer_are_known_pixels_and_the_segment_of_the_label_is_where_they_start(parse):
    request = {"selected_label_name": "liver", "roi": [0, 60, 0, 40, 1, 6]}
    prompts = parse(request, mode="scribbles", label_map=(label_map(), NAMES))
    found = frames(prompts)
    assert prompts.label_names == {"liver": 1}
    assert prompts.slice_range == (1, 7)
    assert sorted(found) == [3, 4, 5]
    assert found[3].box is None, "a ROI of scribbles is a bound alone"
    assert sorted(set(found[3].known[:, 2].tolist())) == [0, 1]
    assert found[4].is_mask_alone
    assert found[4].mask.sum() == 100


def test_a_label_map_of_several_names_needs_one_or_is_several_objects(parse):
    names = {3: "liver", 1: "spleen", 2: "vein"}
    with pytest.raises(PromptError, match="say which with `label`"):
        parse({}, label_map=(label_map(), names))
    assert sorted(frames(parse({"label": "liver"}, label_map=(label_map(), names)))) == [4, 5]
    several = parse({}, mode="multi", label_map=(label_map(), names))
    assert several.label_names == {"liver": 1, "spleen": 2, "vein": 4}
    with pytest.raises(PromptError, match="label map is"):
        parse({"label": "liver"}, label_map=(np.zeros((3, 3, 3), np.uint8), names))


def test_clicks_of_a_scribble_lie_on_it_and_far_from_each_other():
    mask = np.zeros((50, 60), bool)
    mask[10, 5:55] = True
    mask[30, 30] = True
    clicks = spread_clicks(mask)
    assert all(mask[y, x] for x, y in clicks)
    assert len(clicks) == len(set(clicks)) == MOST_CLICKS + 1
