import numpy as np

from lib.infers.cleaning import cleaned, cleaned_labels

BOTH = {"largest_component": True, "fill_holes": True}
NONE = {"largest_component": False, "fill_holes": False}


def ring_and_speck() -> np.ndarray:
    mask = np.zeros((7, 7), bool)
    mask[0:3, 0:3] = True
    mask[1, 1] = False
    mask[6, 6] = True
    return mask


def test_a_mask_keeps_its_largest_piece_and_loses_its_holes():
    expected = np.zeros((7, 7), bool)
    expected[0:3, 0:3] = True
    assert (cleaned(ring_and_speck(), BOTH) == expected).all()


def test_without_the_options_a_mask_stays_as_it_is():
    assert cleaned(ring_and_speck(), NONE).sum() == 9
    labels = ring_and_speck().astype(np.uint8)
    assert cleaned_labels(labels, NONE) is labels


def test_labels_are_cleaned_one_by_one_and_a_hole_with_another_label_stays_its_own():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:6, 1:6, 1:6] = 1
    labels[3, 3, 3] = 2
    labels[2, 2, 2] = 0
    labels[8, 8, 8] = 1
    result = cleaned_labels(labels, BOTH)
    assert result[3, 3, 3] == 2
    assert result[2, 2, 2] == 1
    assert result[8, 8, 8] == 0
