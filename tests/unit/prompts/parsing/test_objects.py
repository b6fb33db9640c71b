import pytest

from lib.errors import PromptError


def summary(prompts):
    """Label: (value, slices of the positive points, number of negative points, number of boxes)."""
    return {
        item.label: (
            item.index,
            [point.slice_index(2) for point in item.points if point.positive],
            sum(not point.positive for point in item.points),
            len(item.boxes),
        )
        for item in prompts.objects
    }


def test_each_label_is_an_object_with_its_configured_value(parse):
    request = {"kidney": [[1, 2, 3]], "liver": [[4, 5, 6], [4, 5, 7]], "spleen": []}
    assert summary(parse(request, "multi")) == {"liver": (1, [6, 7], 0, 0), "kidney": (3, [3], 0, 0)}


def test_background_is_negative_for_every_object(parse):
    request = {"background": [[9, 9, 9]], "liver": [[1, 2, 3]], "spleen": [[4, 5, 6]]}
    assert summary(parse(request, "multi")) == {"liver": (1, [3], 1, 0), "spleen": (2, [6], 1, 0)}


def test_labels_that_the_server_does_not_know_come_last_as_they_appear(parse):
    request = {"tumour": [[1, 2, 3]], "cyst": [[1, 2, 4]], "spleen": [[1, 2, 5]]}
    assert summary(parse(request, "multi")) == {
        "spleen": (2, [5], 0, 0),
        "tumour": (4, [3], 0, 0),
        "cyst": (5, [4], 0, 0),
    }


def test_labels_are_counted_from_one_where_none_is_configured(parse):
    request = {"a": [[1, 2, 3]], "b": [[1, 2, 4]]}
    assert summary(parse(request, "multi", labels=())) == {"a": (1, [3], 0, 0), "b": (2, [4], 0, 0)}


def test_other_keys_of_a_request_are_no_labels(parse):
    request = {
        "model": "biosam2_multi",
        "image": "/studies/a.nii.gz",
        "device": "cpu",
        "result_extension": ".nrrd",
        "result_points": [[1, 2, 3]],
        "window": [-100, 240],
        "session": {"name": "s"},
        "client_id": None,
        "some_option": ["a", "b"],
        "other_option": [1, 2, 3],
        "label_info": [{"name": "liver", "idx": 1}],
        "image_size": [[100, 200]],
        "wsi_tiles": [[0, 0]],
        "spleen": [[4, 5, 6]],
    }
    assert summary(parse(request, "multi")) == {"spleen": (2, [6], 0, 0)}


def test_a_label_of_a_client_is_checked_as_a_configured_one(parse):
    with pytest.raises(PromptError, match=r"tumour\[0\]\[2\] is 'x'"):
        parse({"tumour": [[1, 2, "x"]]}, "multi")
    with pytest.raises(PromptError, match="liver is 'all'; expected a list of points"):
        parse({"liver": "all"}, "multi")


def test_null_lists_of_labels(parse):
    request = {"liver": None, "spleen": [None, [4, 5, 6]]}
    assert summary(parse(request, "multi")) == {"spleen": (2, [6], 0, 0)}


def test_foreground_belongs_to_the_label_that_is_asked_for(parse):
    request = {"foreground": [[1, 2, 3]], "background": [[4, 5, 3]], "label": "spleen"}
    assert summary(parse(request, "multi")) == {"spleen": (2, [3], 1, 0)}
    assert summary(parse(request, "volume")) == {"spleen": (1, [3], 1, 0)}
    assert summary(parse(request, "slice")) == {"spleen": (1, [3], 1, 0)}


def test_the_label_that_slicer_names_needs_no_points(parse):
    request = {"liver": [], "spleen": [[4, 5, 6]], "kidney": [], "label": "liver"}
    assert summary(parse(request, "multi")) == {"spleen": (2, [6], 0, 0)}


def test_vista3d_names_its_label_by_its_place(parse):
    request = {"points": [[1, 2, 3], [4, 5, 3]], "point_labels": [1, 0], "label_prompt": [3]}
    assert summary(parse(request, "multi")) == {"kidney": (3, [3], 1, 0)}
    assert summary(parse({**request, "label_prompt": 1}, "volume")) == {"liver": (1, [3], 1, 0)}


@pytest.mark.parametrize("value", [[1, 2], [0], [4], ["liver"], "liver", {"a": 1}])
def test_label_prompt_is_one_class(parse, value):
    with pytest.raises(PromptError, match="label_prompt is"):
        parse({"points": [[1, 2, 3]], "label_prompt": value}, "multi")


def test_a_class_alone_is_no_prompt(parse):
    with pytest.raises(PromptError, match="'spleen' has no prompt; add a positive point or a box"):
        parse({"label_prompt": [2]}, "multi")


@pytest.mark.parametrize(("labels", "name"), [((), "object"), (("a",), "a"), (("a", "b"), "object")])
@pytest.mark.parametrize("mode", ["slice", "volume", "multi"])
def test_an_object_without_a_name_is_the_only_label_or_an_object(parse, mode, labels, name):
    request = {"foreground": [[1, 2, 3]], "label": None, "label_prompt": None}
    assert list(summary(parse(request, mode, labels=labels))) == [name]


@pytest.mark.parametrize("value", [3, ["liver"], True, {"name": "liver"}, "x" * 201])
def test_label_is_a_name(parse, value):
    with pytest.raises(PromptError, match=r"label.* expected|at most 200"):
        parse({"foreground": [[1, 2, 3]], "label": value})


def test_a_model_of_one_object_takes_the_one_label_with_points(parse):
    request = {"liver": [], "spleen": [[4, 5, 6]], "background": [[1, 1, 6]]}
    assert summary(parse(request, "volume")) == {"spleen": (1, [6], 1, 0)}


def test_a_model_of_one_object_takes_the_label_that_is_asked_for(parse):
    request = {"liver": [[1, 2, 3]], "spleen": [[4, 5, 6]], "label": "spleen"}
    assert summary(parse(request, "slice")) == {"spleen": (1, [6], 0, 0)}


def test_a_model_of_one_object_refuses_several_labels(parse):
    with pytest.raises(PromptError, match=r"'liver', 'spleen'.*one object"):
        parse({"liver": [[1, 2, 3]], "spleen": [[4, 5, 6]]}, "slice")


def test_roi_belongs_to_the_label_that_is_asked_for_and_is_no_bound(parse):
    request = {"roi": [20, 10, 12, 5, 0, 9], "liver": [[1, 2, 3]], "spleen": [[4, 5, 9]], "label": "kidney"}
    prompts = parse(request, "multi")
    assert summary(prompts) == {"liver": (1, [3], 0, 0), "spleen": (2, [9], 0, 0), "kidney": (3, [], 0, 1)}
    assert prompts.slice_range is None


def test_roi_belongs_to_the_only_object(parse):
    roi = [20, 10, 12, 5, 0, 9]
    assert summary(parse({"roi": roi, "spleen": [[4, 5, 9]]}, "multi")) == {"spleen": (2, [9], 0, 1)}
    assert summary(parse({"roi": roi}, "multi")) == {"object": (1, [], 0, 1)}


def test_roi_that_could_belong_to_several_is_refused(parse):
    request = {"roi": [20, 10, 12, 5, 0, 9], "liver": [[1, 2, 3]], "spleen": [[4, 5, 9]]}
    with pytest.raises(PromptError, match=r"roi could belong to any of \['liver', 'spleen'\].*`label`"):
        parse(request, "multi")


def test_boxes_by_label(parse):
    request = {"boxes": {"spleen": [[1, 2, 11, 12, 3]], "liver": []}, "kidney": [[1, 2, 3]]}
    assert summary(parse(request, "multi")) == {"spleen": (2, [], 0, 1), "kidney": (3, [3], 0, 0)}


def test_wrong_boxes_by_label_are_refused_with_their_label(parse):
    with pytest.raises(PromptError, match=r"boxes\['spleen'\]\[0\] is"):
        parse({"boxes": {"spleen": [[1, 2]]}}, "multi")


def test_objects_are_limited_to_the_values_of_a_byte(parse):
    points = [[1, 2, 3]]
    assert len(parse({f"l{n}": points for n in range(255)}, "multi", labels=()).objects) == 255
    with pytest.raises(PromptError, match="256 labels have points; at most 255"):
        parse({f"l{n}": points for n in range(256)}, "multi", labels=())
    with pytest.raises(PromptError, match="1 to 255"):
        parse({f"l{n}": points for n in range(255)}, "multi")


def test_names_are_limited(parse):
    with pytest.raises(PromptError, match="201 characters; at most 200"):
        parse({"x" * 201: [[1, 2, 3]]}, "multi")
