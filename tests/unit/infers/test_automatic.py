import numpy as np
import pytest

from lib.engine.predictor import FrameMask
from lib.infers.automatic import Found
from lib.metrics.calibration import IDENTITY, Calibration


def found(columns, score, presence=1.0):
    mask = np.zeros((2, 4), bool)
    mask[:, columns] = True
    return FrameMask(mask, score, presence)


def test_where_labels_overlap_the_more_confident_one_has_the_voxel():
    # Confidence is predicted IoU times presence: 0.9 x 0.5 = 0.45 against 0.6.
    for order in ((1, 2), (2, 1)):
        image = Found(np.zeros((4, 2, 3), np.uint8, order="F"))
        results = {1: found(slice(0, 3), 0.9, 0.5), 2: found(slice(2, 4), 0.6)}
        for value in order:
            image.add(str(value), value, iter([(1, results[value])]), IDENTITY)
        assert image.labels[:, 0, 1].tolist() == [1, 1, 2, 2]
        assert not image.labels[:, :, [0, 2]].any()
        assert (image.scores, image.slice_scores) == ({"1": 0.45, "2": 0.6}, {"1": {1: 0.45}, "2": {1: 0.6}})


def test_the_confidence_is_calibrated_and_that_of_a_label_not_found_is_its_absence():
    image = Found(np.zeros((4, 2, 3), np.uint8, order="F"))
    halved = Calibration((0.0, 1.0), (0.0, 0.5), 20, 4)
    steps = [(0, found(slice(0, 1), 0.8)), (1, found(slice(0, 1), 0.4)), (2, found(slice(0, 0), 0.9, 0.1))]
    image.add("there", 1, iter(steps), halved)
    image.add(
        "absent", 2, iter([(0, found(slice(0, 0), 0.9, 0.3)), (1, found(slice(0, 0), 0.9, 0.1))]), halved
    )
    assert image.scores == {"there": pytest.approx(0.3), "absent": pytest.approx(0.7)}
    assert image.slice_scores == {"there": {0: 0.4, 1: 0.2}, "absent": {}}
