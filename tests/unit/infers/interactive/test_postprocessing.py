import numpy as np
import pytest

from lib.engine.predictor import FrameMask
from lib.infers.interactive import SliceMerger, cleaned, cleaned_labels
from lib.metrics.calibration import IDENTITY, Calibration

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


def found(columns: slice, score: float, presence: float = 1.0) -> FrameMask:
    mask = np.zeros((2, 4), bool)
    mask[:, columns] = True
    return FrameMask(mask, score, presence)


def test_where_objects_overlap_the_more_confident_one_has_the_voxel() -> None:
    # Confidence is predicted IoU times presence: 0.9 x 0.5 = 0.45 against 0.6.
    for order in ((5, 7), (7, 5)):
        merged = SliceMerger((4, 2, 3), 2, IDENTITY)
        results = {5: found(slice(0, 3), 0.9, 0.5), 7: found(slice(2, 4), 0.6)}
        for value in order:
            merged.add(value, 1, results[value])
        assert merged.labels[:, 0, 1].tolist() == [5, 5, 7, 7]
        assert not merged.labels[:, :, [0, 2]].any()
        assert (merged.score(5), merged.score(7)) == (0.45, 0.6)


def test_the_confidence_is_calibrated_and_where_nothing_is_found_it_is_that_of_absence() -> None:
    merged = SliceMerger((4, 2, 3), 2, Calibration((0.0, 1.0), (0.0, 0.5), 20, 4))
    merged.add(1, 2, found(slice(0, 0), 0.9, 0.3))
    merged.add(1, 0, found(slice(0, 1), 0.8))
    merged.add(1, 1, found(slice(0, 1), 0.4))
    merged.add(2, 0, found(slice(0, 0), 0.9, 0.25))
    assert (merged.score(1), merged.score(2), merged.score(3)) == (pytest.approx(0.3), None, None)
    facts = merged.facts({"there": 1, "absent": 2}, {"there": [2]})
    assert facts["slice_scores"] == {"there": {0: 0.4, 1: 0.2, 2: 0.7}, "absent": {0: 0.75}}
    assert facts["slices_to_check"] == {"there": [0], "absent": [0]}
