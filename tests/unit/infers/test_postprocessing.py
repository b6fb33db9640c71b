import numpy as np

from lib.infers.postprocessing import cleaned, cleaned_labels

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
    assert cleaned_labels(labels, NONE, {}) is labels


def test_labels_are_cleaned_one_by_one_and_a_hole_with_another_label_stays_its_own():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:6, 1:6, 1:6] = 1
    labels[3, 3, 3] = 2
    labels[2, 2, 2] = 0
    labels[8, 8, 8] = 1
    result = cleaned_labels(labels, BOTH, {})
    assert result[3, 3, 3] == 2
    assert result[2, 2, 2] == 1
    assert result[8, 8, 8] == 0


def test_pieces_that_were_clicked_stay():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[0:4, 0:4, 0:4] = labels[6:8, 6:8, 6:8] = labels[0, 8, 8] = 2
    labels[8, 0, 0] = labels[6:8, 0:2, 4] = 1
    result = cleaned_labels(
        labels, {"largest_component": True, "fill_holes": False}, {2: [(1, 1, 1), (7, 7, 7)]}
    )
    assert (result[1, 1, 1], result[7, 7, 7], result[0, 8, 8]) == (2, 2, 0)
    assert (result[6, 0, 4], result[8, 0, 0]) == (1, 0)
