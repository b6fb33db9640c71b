"""What a request for a slide means: rectangles, levels, classes, modes."""

import pytest
from shapely.geometry import Point

from lib.errors import PromptError
from lib.pathology.request import DEFAULT_LABEL, points_of, read_request
from tests.unit.pathology.test_slide import Endless

# Side of the largest rectangle around one object, at 40-fold magnification.
BOX_SIDE = 256
SLIDE = Endless(10_000, 8_000, (1.0, 4.0, 16.0))
CLICK = [[700, 800]]


def read(labels=(), slide=SLIDE, **request):
    return read_request({"mode": "each", **request}, slide, labels)


@pytest.mark.parametrize(
    "whole", [{}, {"location": [-1, -1], "size": [-1, -1]}, {"location": [0, 0], "size": [0, 0]}]
)
def test_without_a_rectangle_it_is_the_whole_slide(whole):
    asked = read(**whole)
    assert asked.regions == ((0, 0, 10_000, 8_000),)
    assert asked.objects == ()


def test_a_rectangle_is_cut_off_at_the_slide_s_borders():
    assert read(location=[-50, 7900], size=[300, 300]).regions == ((0, 7900, 250, 100),)
    assert read(location=[9000.4, 10.6], size=[5000, 700]).regions == ((9000, 11, 1000, 700),)


def test_tiles_are_regions_and_the_rectangle_is_not():
    tiles = [{"location": [0, 0], "size": [512, 512]}, {"location": [512, 512], "size": [512, 512]}]
    asked = read(wsi_tiles=tiles, location=[-1, -1], size=[-1, -1])
    assert asked.regions == ((0, 0, 512, 512), (512, 512, 512, 512))
    assert asked.bounds == (0, 0, 1024, 1024)


def test_a_level_is_how_closely_the_network_looks():
    assert [read(level=level).scale for level in (None, 0, 1, 2)] == [0.5, 0.5, 2, 8]


@pytest.mark.parametrize(("mpp", "scale", "side"), [(0.25, 0.5, 256), (0.5, 0.25, 128), (0.125, 1, 512)])
def test_patches_and_rectangles_are_measured_in_micrometres(mpp, scale, side):
    slide = Endless(10_000, 8_000, (1.0, 4.0), mpp)
    assert read(slide=slide).scale == scale
    assert read(slide=slide, level=1).scale == 4 * scale
    assert read(slide=slide, location=[10, 10], size=[side, side]).objects
    assert not read(slide=slide, location=[10, 10], size=[side + 1, side]).objects


def test_several_rectangles_are_several_objects():
    boxes = [[0, 0, 30, 30], [50, 50, 90, 80], [200, 10, 260, 80]]
    asked = read(boxes=boxes, label="b")
    assert [list(item.boxes[0].in_plane(2)) for item in asked.objects] == boxes
    assert {item.label for item in asked.objects} == {"b"}
    tiles = [{"location": box[:2], "size": [box[2] - box[0], box[3] - box[1]]} for box in boxes]
    assert read(mode="box", wsi_tiles=tiles).objects == read(mode="box", boxes=boxes).objects
    assert len(read(mode="box", wsi_tiles=tiles).objects) == 3


def test_each_region_may_have_a_class_of_its_own():
    tiles = [
        {"location": [0, 0], "size": [512, 512], "label": "tumour"},
        {"location": [512, 0], "size": [512, 512]},
    ]
    asked = read(("a", "b"), wsi_tiles=tiles)
    assert asked.label_at(Point(100, 100)) == "tumour"
    assert asked.label_at(Point(600, 100)) == "a"
    assert [item.label for item in read(("a", "b"), mode="box", wsi_tiles=tiles).objects] == ["tumour", "a"]
    (one,) = read(("a", "b"), mode="box", wsi_tiles=tiles[:1]).objects
    assert one.label == "tumour"


def test_the_class_is_the_one_named_else_the_first_else_ours():
    assert read(foreground=CLICK).objects[0].label == DEFAULT_LABEL
    assert read(("a", "b"), foreground=CLICK).objects[0].label == "a"
    assert read(("a", "b"), foreground=CLICK, label="c").objects[0].label == "c"
    assert [item.label for item in read(("a", "b"), b=CLICK, a=CLICK).objects] == ["a", "b"]


@pytest.mark.parametrize(
    ("mode", "side", "prompts", "boxes"),
    [
        ("each", BOX_SIDE, {}, 1),
        ("each", BOX_SIDE + 1, {}, None),
        ("each", 100, {"foreground": CLICK}, 0),
        ("one", BOX_SIDE * 4, {}, 1),
        ("one", 100, {"foreground": CLICK}, 0),
        ("one", 100, {"background": CLICK}, 1),
        ("box", BOX_SIDE * 4, {"foreground": CLICK}, 1),
        ("box", 100, {"foreground": CLICK, "boxes": [[690, 790, 720, 820]]}, 1),
    ],
)
def test_when_a_rectangle_is_drawn_around_an_object(mode, side, prompts, boxes):
    asked = read(mode=mode, location=[650, 750], size=[side, side], **prompts)
    assert (len(asked.objects[0].boxes) if asked.objects else None) == boxes


def test_a_box_of_its_own_counts_before_the_rectangle():
    asked = read(mode="box", location=[0, 0], size=[900, 900], box=[690, 790, 720, 820])
    assert asked.objects[0].boxes[0].in_plane(2) == (690, 790, 720, 820)


def test_points_are_told_apart():
    (item,) = read(foreground=[[5, 6], [7, 8]], background=[[1, 2]]).objects
    assert points_of(item, True).tolist() == [[5, 6], [7, 8]]
    assert points_of(item, False).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"mode": "one"}, "no click and no rectangle"),
        ({"mode": "most"}, "each, one, box"),
        ({"level": 1.5}, "levels 0 to 2"),
        ({"level": "0"}, "finite number"),
        ({"label": 3}, "label is 3"),
        ({"size": [5, 0], "location": [4, 4]}, "both sides must be above 0"),
        ({"size": [5, 5], "location": [10_000, 4]}, "outside the slide, which has 10000 x 8000"),
        ({"min_poly_area": "small"}, "min_poly_area"),
        ({"wsi_tiles": [{"location": [1, 1]}] * 10_001}, "at most 10000"),
        ({"wsi_tiles": [{"location": [1, 1], "size": [5, 5], "label": 3}]}, "label is 3"),
        ({"annotations": {"nuclick points": {"points": 5}}}, "nuclick points"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(request_, reason):
    with pytest.raises(PromptError, match=reason):
        read(**request_)
