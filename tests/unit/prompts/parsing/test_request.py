import contextlib
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import PromptError
from lib.prompts.parsing import parse_prompts

TWO_SLICES = {"foreground": [[1, 2, 3], [4, 5, 6], [7, 8, 6]], "background": [[9, 9, 3], [9, 9, 6]]}


def test_a_slice_gets_the_prompts_of_the_last_positive_points_slice(parse):
    prompts = parse(TWO_SLICES, "slice")
    assert prompts.slices == (6,)
    assert [point.ijk for point in prompts.objects[0].points] == [(4, 5, 6), (7, 8, 6), (9, 9, 6)]


@pytest.mark.parametrize(("asked", "index"), [(3, 3), (6, 6), (0, 6), (None, 6)])
def test_the_slice_on_display_counts_where_a_positive_point_is_on_it(parse, asked, index):
    # 3D Slicer sends the points of all slices where slice 0 is on display.
    assert parse({**TWO_SLICES, "slice": asked}, "slice").slices == (index,)


def test_a_volume_gets_the_prompts_of_all_slices(parse):
    prompts = parse(TWO_SLICES, "volume")
    assert prompts.slices == (3, 6)
    assert len(prompts.objects[0].points) == 5


def test_a_roi_around_the_points_slice_is_that_slices_box(parse):
    prompts = parse({**TWO_SLICES, "roi": [0, 20, 0, 20, 5, 9]}, "slice")
    assert prompts.slices == (6,)
    assert prompts.frames(prompts.objects[0])[6].box.tolist() == [0, 0, 20, 20]


def test_boxes_on_other_slices_are_left_out_of_a_slice(parse):
    request = {**TWO_SLICES, "roi": [0, 20, 0, 20, 7, 9], "boxes": [[1, 1, 4, 4, 6], [1, 1, 5, 5, 2]]}
    prompts = parse(request, "slice")
    assert prompts.frames(prompts.objects[0])[6].box.tolist() == [1, 1, 4, 4]
    assert prompts.slices == (6,)


def test_the_last_box_tells_the_slice_where_no_point_does(parse):
    request = {"roi": [0, 20, 0, 20, 0, 9], "boxes": [[1, 1, 4, 4, 6], [1, 1, 5, 5, 2]], "slice": 4}
    with pytest.raises(PromptError, match="two boxes on slice 2"):
        parse(request, "slice")
    assert parse({"boxes": request["boxes"], "slice": 4}, "slice").slices == (2,)


def test_negative_points_and_a_box_are_enough(parse):
    for mode in ("slice", "volume", "multi"):
        prompts = parse({"background": [[9, 9, 6]], "roi": [5, 2, 20, 12], "slice": 6}, mode)
        frame = prompts.frames(prompts.objects[0])[6]
        assert frame.labels.tolist() == [0]
        assert frame.box.tolist() == [5, 2, 20, 12]


@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
@pytest.mark.parametrize(
    "request_", [{}, {"foreground": None}, {"foreground": [], "background": []}, {"slice": 99}]
)
def test_no_prompt_is_refused(parse, mode, request_):
    with pytest.raises(PromptError, match="no prompt; add a positive point or a box"):
        parse(request_, mode)


@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
def test_negative_points_alone_are_refused(parse, mode):
    with pytest.raises(PromptError, match="only negative points; add a positive one or a box"):
        parse({"background": [[1, 2, 3]]}, mode)


def test_the_slices_of_a_roi_bound_the_volume(parse):
    prompts = parse({"foreground": [[1, 2, 3]], "roi": [20, 10, 12, 5, 6, 1]}, "volume")
    assert prompts.slice_range == (1, 7)
    assert prompts.slices == (3,)
    assert parse({"roi": [20, 10, 12, 5, 6, 1]}, "volume").slices == (3,)


def test_a_positive_point_outside_the_slices_of_the_roi_is_refused(parse):
    with pytest.raises(PromptError, match="slice 9, outside the slices 1 to 6"):
        parse({"foreground": [[1, 2, 9]], "roi": [20, 10, 12, 5, 6, 1]}, "volume")


def test_roi_and_slice_range_bound_together(parse):
    request = {"roi": [20, 10, 12, 5, 0, 9], "slice_range": [6, 9]}
    prompts = parse(request, "volume")
    assert prompts.slice_range == (6, 9)
    assert prompts.slices == (7,)
    with pytest.raises(PromptError, match=r"slice_range \[0, 2\] and the slices 4 to 9 of roi"):
        parse({"roi": [20, 10, 12, 5, 4, 9], "slice_range": [0, 2]}, "volume")


def test_a_model_of_volumes_refuses_an_image(parse_2d, parse):
    with pytest.raises(PromptError, match="2-D and this model needs a volume"):
        parse_2d({"foreground": [[1, 2]]}, mode="volume")
    with pytest.raises(PromptError, match="one slice thick"):
        parse({"foreground": [[1, 2, 0]]}, "volume", shape=(30, 20, 1))


def test_several_objects_of_an_image(parse_2d):
    prompts = parse_2d({"liver": [[25, 2]], "spleen": [[3, 18]]}, mode="multi")
    assert prompts.label_names == {"liver": 1, "spleen": 2}
    assert prompts.slices == (0,)


def test_the_request_is_left_as_it_was(parse):
    request = {"foreground": [None, [1, 2, 3]], "roi": [20, 10, 12, 5, 0, 9], "liver": [[1, 2, 3]]}
    request["label"] = "liver"
    copy = deepcopy(request)
    for mode in ("slice", "volume", "multi"):
        parse(request, mode)
    assert request == copy


OHIF = {
    "model": "m",
    "image": "/studies/1.2.3.nii.gz",
    "description": "d",
    "result_extension": ".nrrd",
    "result_dtype": "uint8",
    "result_compress": False,
    "restore_label_idx": False,
}
SLICER = {
    "model": "m",
    "image": "/studies/a.nii.gz",
    "label": "spleen",
    "device": "cpu",
    "reset_state": False,
    "largest_cc": False,
    "pylab": False,
    "result_extension": ".nrrd",
    "result_dtype": "uint8",
    "client_id": "user-xyz",
}


@pytest.mark.parametrize(
    ("request_", "mode", "slices", "values"),
    [
        (OHIF | {"foreground": [[10, 14, 5]], "background": []}, "slice", (5,), {"object": 1}),
        (OHIF | {"foreground": [[10, 14, 5]], "background": []}, "volume", (5,), {"object": 1}),
        (
            OHIF | {"background": [[19, 19, 1]], "liver": [[16, 12, 1]], "cyst": [[10, 14, 1]]},
            "multi",
            (1,),
            {"liver": 1, "cyst": 4},
        ),
        (
            OHIF | {"points": [[13, 12, 1], [8, 19, 1]], "point_labels": [1, 0], "label_prompt": [1]},
            "multi",
            (1,),
            {"liver": 1},
        ),
        (SLICER | {"foreground": [[10, 20, 5]], "background": [], "slice": 5}, "slice", (5,), {"spleen": 1}),
        (
            SLICER | {"foreground": [], "background": [], "roi": [20, 10, 12, 5, 9, 0], "slice": 7},
            "slice",
            (7,),
            {"spleen": 1},
        ),
        (
            SLICER | {"foreground": [[10, 20, 5]], "background": [], "roi": [20, 10, 12, 5, 9, 0]},
            "volume",
            (4, 5),
            {"spleen": 1},
        ),
        (SLICER | {"liver": [], "spleen": [[10, 20, 5]], "kidney": []}, "multi", (5,), {"spleen": 2}),
        ({"foreground": [[1, 2, 3]], "background": [], "reset_state": True}, "volume", (3,), {"object": 1}),
    ],
    ids=[
        "ohif-2d",
        "ohif-3d",
        "ohif-deepedit",
        "ohif-vista3d",
        "slicer",
        "slicer-roi",
        "slicer-3d",
        "slicer-deepedit",
        "mitk",
    ],
)
def test_what_the_viewers_send(parse, request_, mode, slices, values):
    prompts = parse(request_, mode)
    assert prompts.slices == slices
    assert prompts.label_names == values


@pytest.mark.parametrize(
    "request_",
    [
        {
            "output": "mask",
            "foreground": [[12, 7]],
            "background": [],
            "roi": [5, 2, 20, 12],
            "client_id": None,
        },
        {"output": "json", "roi": [5, 2, 20, 12]},
        {
            "foreground": [[12, 7]],
            "background": [],
            "max_workers": 1,
            "level": 0,
            "location": [0, 0],
            "size": [0, 0],
        },
    ],
    ids=["cvat-interactor", "cvat-tracker", "qupath"],
)
def test_what_the_clients_of_images_send(parse_2d, request_):
    assert parse_2d(request_).slices == (0,)


NUMBERS = st.one_of(st.integers(-3, 70), st.floats(-3, 70), st.floats(), st.integers())
JSON = st.recursive(
    st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
I_INDEX, J_INDEX, K_INDEX = st.integers(0, 63), st.integers(0, 47), st.integers(0, 9)
POINTS = st.none() | st.lists(st.none() | st.tuples(I_INDEX, J_INDEX, K_INDEX).map(list), max_size=4)
BOXES = st.none() | st.lists(
    st.none() | st.tuples(I_INDEX, J_INDEX, I_INDEX, J_INDEX, K_INDEX).map(list), max_size=3
)
VERTICES = st.lists(st.tuples(I_INDEX, J_INDEX).map(list), min_size=1, max_size=5)
REGIONS = st.none() | st.lists(
    st.fixed_dictionaries(
        {"points": VERTICES},
        optional={"slice": K_INDEX, "positive": st.booleans(), "label": st.sampled_from(["liver", "tumour"])},
    ),
    max_size=2,
)
GOOD = {
    "scribbles": REGIONS,
    "lassos": REGIONS,
    **dict.fromkeys(["foreground", "background", "points", "liver", "spleen", "tumour"], POINTS),
    "label": st.sampled_from([None, "liver", "spleen", "tumour"]),
    "label_prompt": st.none() | st.lists(st.integers(1, 2), max_size=1),
    "roi": st.none()
    | st.tuples(I_INDEX, I_INDEX, J_INDEX, J_INDEX, K_INDEX, K_INDEX).map(list)
    | st.tuples(I_INDEX, J_INDEX, I_INDEX, J_INDEX).map(list),
    "boxes": BOXES | st.dictionaries(st.sampled_from(["liver", "tumour"]), BOXES),
    "slice": st.none() | K_INDEX,
    "axis": st.none() | st.integers(0, 2),
    "slice_range": st.none() | st.tuples(st.integers(0, 4), st.integers(5, 10)).map(list),
}
ANY_KEY = st.sampled_from([*GOOD, "point_labels", "box", "location", "image"]) | st.text(max_size=5)
REQUESTS = st.builds(
    lambda good, anything: {**good, **anything},
    st.fixed_dictionaries({}, optional=GOOD),
    st.dictionaries(
        ANY_KEY, JSON | st.lists(NUMBERS, max_size=7) | st.lists(st.lists(NUMBERS, max_size=5)), max_size=1
    ),
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    request_=REQUESTS,
    mode=st.sampled_from(["slice", "volume", "scribbles", "multi"]),
    shape=st.sampled_from([(64, 48, 10), (64, 48, 10), (64, 48, 1)]),
)
def test_anything_is_prompts_inside_the_image_or_a_prompt_error(request_, mode, shape):
    affine = np.diag([-0.7, -0.7, 2.5, 1.0])
    options = {"shape": shape, "affine": affine, "is_2d": shape[2] == 1, "labels": ("liver", "spleen")}
    with contextlib.suppress(PromptError):
        _check_inside(parse_prompts(request_, mode=mode, **options), mode, shape)


def _check_inside(prompts, mode, shape):
    assert all(0 <= index < shape[prompts.axis] for index in prompts.slices)
    assert mode != "slice" or len(prompts.slices) == 1
    for item in prompts.objects:
        assert any(frame.has_positive for frame in prompts.frames(item).values())
        for point in item.points:
            assert all(0 <= value <= count - 1 for value, count in zip(point.ijk, shape, strict=True))
        for box in item.boxes:
            assert all(value >= 0 for value in box.lower)
            assert all(value <= count for value, count in zip(box.upper, shape, strict=True))
