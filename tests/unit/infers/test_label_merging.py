import numpy as np
import pytest

from lib.errors import LabelError
from lib.infers.label_merging import merge
from lib.labels import LabelMap


def label(names, *slices):
    """A label of 1 x 3 voxels in each slice along the last axis."""
    return LabelMap(np.array(slices, np.uint8).T[None], names)


def values(labels):
    return labels.array[0].T.tolist()


def test_an_image_without_a_label_gets_the_answer():
    merged = merge(None, label({1: "liver"}, [0, 1, 1], [0, 0, 1]), {"liver": 1}, None)
    assert (values(merged), merged.names) == ([[0, 1, 1], [0, 0, 1]], {1: "liver"})


def test_an_object_s_voxels_are_replaced_and_others_stay():
    old = label({1: "spleen", 2: "liver"}, [1, 2, 2], [1, 2, 0])
    merged = merge(old, label({7: "liver"}, [7, 0, 7], [0, 0, 7]), {"liver": 7}, None)
    assert (values(merged), merged.names) == ([[1, 0, 2], [1, 0, 2]], {1: "spleen", 2: "liver"})


def test_a_new_object_gets_the_next_value():
    merged = merge(label({3: "spleen"}, [3, 0, 0]), label({1: "liver"}, [1, 1, 0]), {"liver": 1}, None)
    assert (values(merged), merged.names) == ([[3, 4, 0]], {3: "spleen", 4: "liver"})


def test_an_answer_on_a_slice_touches_that_slice_alone():
    old = label({1: "liver"}, [1, 1, 1], [1, 1, 1])
    merged = merge(old, label({1: "liver"}, [0, 0, 0], [0, 1, 0]), {"liver": 1}, (2, 1))
    assert values(merged) == [[1, 1, 1], [0, 1, 0]]


def test_an_object_that_was_not_found_is_taken_out():
    merged = merge(label({1: "a", 2: "b"}, [1, 2, 2]), label({}, [0, 0, 0]), {"b": 1}, None)
    assert (values(merged), merged.names) == ([[1, 0, 0]], {1: "a"})


def test_more_objects_than_a_byte_holds_are_refused():
    with pytest.raises(LabelError, match="up to 256; at most 255"):
        merge(label({255: "a"}, [255, 0, 0]), label({1: "b"}, [0, 1, 0]), {"b": 1}, None)
