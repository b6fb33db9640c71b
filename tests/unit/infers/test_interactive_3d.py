import numpy as np
import pytest

from lib.engine.predictor import FrameMask
from lib.infers.interactive_3d import _label_map, _mean_score


def found(columns: slice, score: float) -> FrameMask:
    mask = np.zeros((2, 4), bool)
    mask[:, columns] = True
    return FrameMask(mask, score, 1.0)


def test_where_objects_overlap_the_better_score_has_the_pixel():
    frame = {0: found(slice(0, 3), 0.9), 1: found(slice(2, 4), 0.6)}
    assert _label_map(frame, [5, 7]).tolist() == [[5, 5, 5, 7]] * 2
    frame = {0: found(slice(0, 3), 0.5), 1: found(slice(2, 4), 0.6)}
    assert _label_map(frame, [5, 7]).tolist() == [[5, 5, 7, 7]] * 2


def test_a_score_is_the_mean_over_the_slices_that_hold_the_object():
    slices = {
        1: {0: found(slice(0, 2), 0.8)},
        2: {0: found(slice(0, 2), 0.6), 1: found(slice(0, 0), 0.1)},
        3: {0: found(slice(0, 0), 0.0)},
    }
    assert _mean_score(slices, 0) == pytest.approx(0.7)
    assert _mean_score(slices, 1) == 0.0
