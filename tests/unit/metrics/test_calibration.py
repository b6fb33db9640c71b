from __future__ import annotations

import json

import numpy as np
import pytest

from lib.metrics.calibration import (
    IDENTITY,
    Calibration,
    expected_calibration_error,
    fit_calibration,
    reliability_diagram,
)


def test_a_network_that_flatters_itself_is_corrected():
    # It says 0.8 where people find 0.6, and 0.2 where they find 0.1; between them a straight line.
    fitted = fit_calibration([0.8] * 10 + [0.2] * 10, [0.5, 0.7] * 5 + [0.1] * 10)
    assert [fitted(iou) for iou in (0.2, 0.5, 0.8)] == pytest.approx([0.1, 0.35, 0.6])
    assert [fitted(iou) for iou in (0.0, 1.0)] == pytest.approx([0.1, 0.6])
    assert fitted.pairs == 20
    assert fitted.name != ""


def test_a_curve_that_would_fall_is_level():
    # 0.3 has 0.8 and 0.6 has 0.2, ten times each: together 0.5. 0.9, five times, is above both.
    fitted = fit_calibration([0.3] * 10 + [0.6] * 10 + [0.9] * 5, [0.8] * 10 + [0.2] * 10 + [0.9] * 5)
    assert [fitted(iou) for iou in (0.3, 0.45, 0.6, 0.9)] == pytest.approx([0.5, 0.5, 0.5, 0.9])


def test_pairs_count_as_often_as_they_are_there():
    # Pooled, 15 times 0.8 and 5 times 0.2: (15 * 0.8 + 5 * 0.2) / 20.
    fitted = fit_calibration([0.3] * 15 + [0.6] * 5, [0.8] * 15 + [0.2] * 5)
    assert fitted(0.5) == pytest.approx(0.65)


def test_few_pairs_change_nothing():
    assert [IDENTITY(iou) for iou in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]
    assert IDENTITY.name == ""

    # Few pairs change nothing.
    assert fit_calibration([0.9] * 19, [0.1] * 19) is IDENTITY


def test_what_is_no_pair_is_refused():
    for predicted, true in [([0.1] * 20, [0.1] * 19), ([float("nan")] * 20, [0.1] * 20)]:
        with pytest.raises(ValueError, match="pairs of finite numbers"):
            fit_calibration(predicted, true)


def test_it_is_read_back_from_json():
    fitted = Calibration((0.2, 0.8), (0.1, 0.6), 20, 3)
    again = Calibration.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert again.name == fitted.name


def test_the_calibration_error_is_weighted_by_the_pairs():
    # Bins of a tenth: 0.82 and 0.88 share one, 0.1 stands alone, 1.0 belongs to the last.
    diagram = reliability_diagram([0.82, 0.88, 0.1, 1.0], [0.5, 0.7, 0.3, 1.0])
    assert [(item.predicted, item.true, item.count) for item in diagram] == [
        (pytest.approx(0.1), pytest.approx(0.3), 1),
        (pytest.approx(0.85), pytest.approx(0.6), 2),
        (pytest.approx(1.0), pytest.approx(1.0), 1),
    ]
    assert reliability_diagram([], []) == []

    # The expected calibration error is weighted by the pairs.
    # |0.1 - 0.3| once, |0.85 - 0.6| twice, 0 once.
    error = expected_calibration_error([0.82, 0.88, 0.1, 1.0], [0.5, 0.7, 0.3, 1.0])
    assert error == pytest.approx((0.2 + 2 * 0.25) / 4)
    assert expected_calibration_error([], []) == 0

    # A fitted curve lowers the error of a network that flatters itself.
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.5, 1, 200)
    true = np.clip(predicted - 0.2 + rng.normal(0, 0.02, 200), 0, 1)
    fitted = fit_calibration(predicted, true)
    assert expected_calibration_error(predicted, true) == pytest.approx(0.2, abs=0.01)
    assert expected_calibration_error([fitted(value) for value in predicted], true) < 0.01
