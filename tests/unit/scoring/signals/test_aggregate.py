import pytest

from lib.metrics.calibration import Calibration
from lib.scoring.signals.aggregate import SIGNALS, WEIGHTS, combine, mean_parts

ALL = {"stability": 0.1, "predicted_iou": 0.2, "entropy": 0.5, "jitter": 0.3, "presence": 1.0}


def test_every_signal_has_its_weight_and_they_are_shares():
    assert set(WEIGHTS) == set(SIGNALS)
    assert sum(WEIGHTS.values()) == pytest.approx(1)


def test_the_score_is_the_weighted_mean():
    assert combine(ALL) == pytest.approx(0.3 * 0.1 + 0.25 * 0.2 + 0.2 * 0.5 + 0.2 * 0.3 + 0.05 * 1.0)


def test_what_could_not_be_told_counts_as_undecided():
    assert combine({}) == pytest.approx(0.5)
    assert combine({"presence": 1.0}) == pytest.approx(0.95 * 0.5 + 0.05)
    assert combine({**ALL, "unheard of": 1.0}) == combine(ALL)


def test_the_least_and_the_most():
    assert combine(dict.fromkeys(SIGNALS, 0.0)) == 0
    assert combine(dict.fromkeys(SIGNALS, 1.0)) == pytest.approx(1)


def test_the_predicted_iou_is_calibrated():
    # Predicted 0.8; people find 0.6 there, so its part is 0.4 and not 0.2.
    calibration = Calibration((0.2, 0.8), (0.1, 0.6), 20)
    assert combine(ALL, calibration) - combine(ALL) == pytest.approx(0.25 * 0.2)


def test_signals_are_averaged_over_those_who_have_them():
    found = mean_parts([{"jitter": 0.2, "entropy": 0.5}, {"jitter": 0.4}, {"presence": 1.0}, {}])
    assert found == pytest.approx({"entropy": 0.5, "jitter": 0.3, "presence": 1.0})
    assert mean_parts([]) == {}
    assert mean_parts([{"entropy": 1 + 1e-9}]) == {"entropy": 1.0}
