import numpy as np
import pytest

from sample_study.case import Case


def test_a_mask_is_where_the_truth_has_the_labels_value():
    truth = np.array([[0, 1], [2, 2]], np.uint8)
    case = Case("tiny", truth, truth, {"one": 1, "two": 2})
    assert case.mask("two").tolist() == [[False, False], [True, True]]
    with pytest.raises(KeyError, match="three"):
        case.mask("three")


def test_an_image_with_an_affine_is_a_volume():
    array = np.zeros((2, 2, 2), np.uint8)
    assert Case("volume", array, array, {}, np.eye(4)).is_volume
    assert not Case("picture", array[..., 0], array[..., 0], {}).is_volume
