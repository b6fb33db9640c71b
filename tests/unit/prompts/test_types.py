import numpy as np
import pytest

from lib.errors import PromptError
from lib.prompts.types import Box, FramePrompts, MaskPrompt, ObjectPrompts, Point, PromptSet

BOX = Box((5, 2, 0), (20, 12, 10))


def test_point_is_on_the_slice_of_the_nearest_voxel_centre():
    point = Point(1.2, 2.5, 3.4)
    assert [point.slice_index(axis) for axis in (0, 1, 2)] == [1, 3, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_point_must_be_finite(value):
    with pytest.raises(PromptError, match="finite"):
        Point(value, 0, 0)


def test_box_is_half_open():
    assert BOX.slice_range(2) == (0, 10)
    assert BOX.middle_slice(2) == 4
    assert Box((0, 0, 3), (1, 1, 4)).middle_slice(2) == 3


@pytest.mark.parametrize(
    ("axis", "in_plane"), [(0, (2, 0, 12, 10)), (1, (5, 0, 20, 10)), (2, (5, 2, 20, 12))]
)
def test_box_on_a_slice_is_in_the_two_other_axes_ascending(axis, in_plane):
    assert BOX.in_plane(axis) == in_plane


def test_empty_box_is_refused():
    with pytest.raises(PromptError, match="upper must be above lower"):
        Box((0, 0, 0), (4, 0, 4))


def test_frame_prompts_have_the_shapes_and_dtypes_that_the_engine_takes():
    frame = FramePrompts([[3, 4]], [1], box=[0, 1, 2, 3], mask=np.eye(3))
    assert frame.points.dtype == np.float32
    assert frame.points.shape == (1, 2)
    assert frame.labels.dtype == np.int32
    assert frame.box.tolist() == [0, 1, 2, 3]
    assert frame.mask.dtype == bool


def test_frame_prompts_may_be_a_box_alone():
    frame = FramePrompts.of_box([0, 1, 2, 3])
    assert frame.points.shape == (0, 2)
    assert frame.box.tolist() == [0, 1, 2, 3]
    assert frame.has_positive


def test_frame_prompts_may_be_a_mask_alone():
    frame = FramePrompts.of_mask(np.eye(3))
    assert (frame.points.shape, frame.labels.shape, frame.box) == ((0, 2), (0,), None)
    assert frame.mask.tolist() == np.eye(3, dtype=bool).tolist()
    assert frame.has_positive


def test_frame_of_negative_points_has_nothing_positive():
    assert not FramePrompts([[1, 2]], [0]).has_positive


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (([[1, 2]], [1, 0]), "one label a point"),
        (([[1, np.nan]], [1]), "finite"),
        (([[1, 2]], [2]), "allowed are 1 and 0"),
        (([], [], [4, 1, 4, 3]), "x0 < x1"),
        (([], [], [4, 1, 5]), "x0, y0, x1, y1"),
        (([], [], None, np.zeros((3, 3))), "at least one pixel"),
        (([], [], None, np.ones(3)), "H, W"),
    ],
)
def test_frame_prompts_refuse(arguments, reason):
    with pytest.raises(PromptError, match=reason):
        FramePrompts(*arguments)


@pytest.mark.parametrize(
    ("points", "reason"), [((), "no prompt"), ((Point(0, 0, 0, positive=False),), "only negative points")]
)
def test_object_needs_something_positive(points, reason):
    with pytest.raises(PromptError, match=f"'liver' has {reason}.*box"):
        ObjectPrompts("liver", points)


@pytest.mark.parametrize("index", [0, 256])
def test_object_value_fits_a_byte(index):
    with pytest.raises(PromptError, match="1 to 255"):
        ObjectPrompts("liver", (Point(0, 0, 0),), index=index)


def test_frames_group_an_objects_prompts_by_slice():
    mask = MaskPrompt(7, np.eye(4))
    item = ObjectPrompts("a", (Point(1, 2, 4), Point(5, 6, 9, positive=False)), (BOX,), (mask,))
    frames = PromptSet((item,)).frames(item)
    assert list(frames) == [4, 7, 9]
    assert frames[4].points.tolist() == [[1, 2]]
    assert frames[4].labels.tolist() == [1]
    assert frames[4].box.tolist() == [5, 2, 20, 12]
    assert frames[7].mask.sum() == 4
    assert frames[9].labels.tolist() == [0]
    assert frames[9].box is None


def test_frames_along_another_axis_have_the_other_coordinates():
    item = ObjectPrompts("a", (Point(10, 20, 30),))
    assert PromptSet((item,), axis=0).frames(item)[10].points.tolist() == [[20, 30]]
    assert PromptSet((item,), axis=1).frames(item)[20].points.tolist() == [[10, 30]]


def test_prompt_set_knows_its_slices_and_label_values():
    first = ObjectPrompts("a", (Point(0, 0, 5),))
    second = ObjectPrompts("b", (Point(0, 0, 2), Point(0, 0, 5)), index=3)
    prompts = PromptSet((first, second))
    assert prompts.slices == (2, 5)
    assert prompts.label_names == {"a": 1, "b": 3}


def test_prompt_set_refuses_two_boxes_on_a_slice():
    item = ObjectPrompts("a", boxes=(BOX, BOX))
    with pytest.raises(PromptError, match="two boxes on slice 4"):
        PromptSet((item,))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"objects": ()}, "no prompt"),
        ({"axis": 3}, "0, 1 or 2"),
        ({"slice_range": (4, 4)}, "half-open"),
        (
            {"objects": (ObjectPrompts("a", (Point(0, 0, 0),)), ObjectPrompts("b", (Point(0, 0, 0),)))},
            "index",
        ),
    ],
)
def test_prompt_set_refuses(arguments, reason):
    with pytest.raises(PromptError, match=reason):
        PromptSet(**{"objects": (ObjectPrompts("a", (Point(0, 0, 0),)),), **arguments})
