import copy

import pytest
from monailabel.datastore.local import ImageLabelModel

from lib.datastores.merging import merge_images, merge_values


@pytest.mark.parametrize(
    ("mine", "before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}),  # they changed it
        ({"a": 2}, {"a": 1}, {"a": 1}, {"a": 2}),  # we changed it
        ({"a": 2}, {"a": 1}, {"a": 3}, {"a": 2}),  # both did
        ({"a": 1}, {"a": 1}, {}, {}),  # they removed it
        ({}, {"a": 1}, {"a": 1}, {}),  # we removed it
        ({"a": 2}, {"a": 1}, {}, {"a": 2}),  # we changed what they removed
        ({}, {"a": 1}, {"a": 2}, {"a": 2}),  # they changed what we removed
        ({}, {}, {"a": 1}, {"a": 1}),  # they added it
        ({"a": 1}, {}, {}, {"a": 1}),  # we added it
        ({"a": 1}, {}, {"a": 2}, {"a": 1}),  # both added it
        ({"t": {"a": 1}}, {}, {"t": {"b": 2}}, {"t": {"a": 1, "b": 2}}),  # both began one table
        ({"t": {"a": 1, "b": 1}}, {"t": {"a": 1}}, {"t": {"a": 2}}, {"t": {"a": 2, "b": 1}}),
        ({"t": 5}, {"t": {"a": 1}}, {"t": {"a": 2}}, {"t": 5}),
    ],
)
def test_what_either_side_did_is_kept(mine, before, after, expected):
    untouched = copy.deepcopy((before, after))
    merge_values(mine, before, after)
    assert mine == expected
    assert (before, after) == untouched


def record(info=None, **labels):
    return {
        "image": {"ext": ".nii.gz", "info": dict(info or {})},
        "labels": {tag: {"ext": ".nii.gz", "info": told} for tag, told in labels.items()},
    }


def test_a_label_of_theirs_joins_a_score_of_ours_and_models_stay_the_same_objects():
    before = {"x": record()}
    model = ImageLabelModel.model_validate(record({"score": 0.5}))
    mine = {"x": model}
    gone_through = model.labels
    merge_images(mine, before, {"x": record({"strategy": "first"}, final={"label_info": [1]})})
    assert mine["x"] is model
    assert gone_through == {}
    assert model.image.info == {"score": 0.5, "strategy": "first"}
    assert model.labels["final"].info == {"label_info": [1]}


def test_images_come_and_go_as_they_did_elsewhere():
    before = {"x": record(), "y": record(), "z": record()}
    mine = {name: ImageLabelModel.model_validate(before[name]) for name in "xyz"}
    mine["y"].image.info["score"] = 1
    merge_images(mine, before, {"z": record(), "new": record({"a": 1})})
    # x went; y would have, but for what we wrote on it.
    assert sorted(mine) == ["new", "y", "z"]
    assert mine["new"].image.info == {"a": 1}


def test_a_label_that_was_removed_elsewhere_goes_and_one_that_was_saved_again_is_theirs():
    before = {"x": record(final={"ts": 1}, original={"ts": 1})}
    mine = {"x": ImageLabelModel.model_validate(before["x"])}
    merge_images(mine, before, {"x": record(final={"ts": 2})})
    assert {tag: label.info for tag, label in mine["x"].labels.items()} == {"final": {"ts": 2}}
