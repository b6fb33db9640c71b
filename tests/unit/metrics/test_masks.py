import numpy as np
import pytest

from lib.metrics.masks import check_pair


def test_masks_of_one_shape_may_be_compared():
    check_pair(np.zeros((3, 4), bool), np.ones((3, 4), bool))


def test_different_shapes_may_not():
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(4, 3\) cannot be compared: put them on one grid"):
        check_pair(np.zeros((3, 4), bool), np.zeros((4, 3), bool))


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_bool_is_no_mask(place):
    masks = [np.zeros((3, 4), bool), np.zeros((3, 4), bool)]
    masks[place] = masks[place].astype(np.uint8)
    with pytest.raises(ValueError, match="uint8 is not a mask: compare bool arrays, such as mask > 0"):
        check_pair(*masks)
