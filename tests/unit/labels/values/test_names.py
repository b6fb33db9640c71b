"""Names of values, by everything that datastores and files say; and who drew them."""

from __future__ import annotations

import pytest

from lib.labels.values import annotator_of, listed_label_info, name_values


def info(*entries):
    return [{"name": name, "idx": idx} for name, idx in entries]


NAMES_OF_THE_DATASTORE = [
    # As 3D Slicer saves two segments.
    ([1, 2], info(("spleen", 1), ("liver", 2)), {1: "spleen", 2: "liver"}),
    # Slicer's first segment, background, is not exported: idx counts it, the values do not.
    ([1, 2], info(("spleen", 2), ("liver", 3)), {1: "spleen", 2: "liver"}),
    # The same, with nothing drawn of the spleen.
    ([2], info(("spleen", 2), ("liver", 3), ("aorta", 4)), {2: "liver"}),
    # A server's own label values.
    ([5, 9], info(("spleen", 5), ("liver", 9)), {5: "spleen", 9: "liver"}),
    ([9], info(("spleen", 5), ("liver", 9)), {9: "liver"}),
    # In another order.
    ([1, 2], info(("liver", 2), ("spleen", 1)), {1: "spleen", 2: "liver"}),
    ([2], info(("liver", 2), ("spleen", 1)), {2: "liver"}),
    # One that is not drawn on this image.
    ([1, 3], info(("a", 1), ("b", 2), ("c", 3)), {1: "a", 3: "c"}),
    # Values that no index and no place explains, as many as entries.
    ([40, 80], info(("a", 1), ("b", 2)), {40: "a", 80: "b"}),
    ([255], info(("cell", 1)), {255: "cell"}),
    # Instances of one class.
    ([1, 2, 3, 7], info(("nucleus", 1)), {1: "nucleus", 2: "nucleus", 3: "nucleus", 7: "nucleus"}),
    # A value more than there are names.
    ([1, 2, 3], info(("a", 1), ("b", 2)), {1: "a", 2: "b", 3: "label_3"}),
    # Entries without idx, without a name, and the background.
    ([1, 2], [{"name": "a"}, {"name": "b"}], {1: "a", 2: "b"}),
    ([1, 2], info(("background", 0), ("a", 1), ("b", 2)), {1: "a", 2: "b"}),
    ([1, 2], info(("", 1), ("b", 2)), {1: "label_1", 2: "b"}),
    ([1, 2], [{"idx": 1}, {"name": "b", "idx": "2"}], {1: "label_1", 2: "b"}),
    ([1], [None, "liver"], {1: "label_1"}),
    ([4], [], {4: "label_4"}),
    ([4], None, {4: "label_4"}),
]


def test_names_of_the_datastore():
    for values, listed, expected in NAMES_OF_THE_DATASTORE:
        assert name_values(values, {}, listed) == expected


def test_the_files_own_names_stand_where_the_datastore_has_none():
    assert name_values([1, 2], {1: "liver"}, None) == {1: "liver", 2: "label_2"}
    assert name_values([1, 2], {1: "old", 2: "kidney"}, info(("liver", 1))) == {1: "liver", 2: "liver"}


def test_the_files_own_names_say_which_of_the_datastores_names_is_which():
    """A segmentation lists its segments in one order and numbers them in another."""
    own = {1: "liver", 2: "spleen"}
    assert name_values([1, 2], own, info(("spleen", 1), ("liver", 2))) == own


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({"label_info": info(("spleen", 1))}, info(("spleen", 1))),
        # As another release of MONAI Label keeps Slicer's params.
        ({"params": {"label_info": info(("liver", 2))}}, info(("liver", 2))),
        ({"label_info": [None, "spleen"], "params": "x"}, []),
        ({"params": "x"}, []),
        ({}, []),
    ],
)
def test_the_list_of_classes_is_found_wherever_it_was_kept(kept, expected):
    assert listed_label_info(kept) == expected


THE_ANNOTATOR_IS_WHO_SIGNED_IN_ELSE_WHO_ = [
    ({}, ""),
    ({"client_id": "ann", "user": "admin"}, "ann"),
    ({"params": {"client_id": "ann"}, "user": "admin"}, "ann"),
    # Where people sign in, what their viewer says does not count.
    ({"client_id": "laptop 3", "user": "ann"}, "ann"),
    # Who reviewed a label did not draw it.
    ({"client_id": "laptop 3", "user": "ben", "saved_by": "ann"}, "ann"),
    # Nobody entered a name.
    ({"client_id": "user-xyz", "user": "admin"}, ""),
    ({"client_id": "user-xyz", "user": "ann"}, "ann"),
    ({"client_id": None, "params": None}, ""),
    ({"client_id": 7, "params": "odd"}, "7"),
]


def test_the_annotator_is_who_signed_in_else_who_the_client_named():
    for info, expected in THE_ANNOTATOR_IS_WHO_SIGNED_IN_ELSE_WHO_:
        assert annotator_of(info) == expected
