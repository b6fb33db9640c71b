from __future__ import annotations

from pathlib import Path

import pytest

from lib.scoring.signals.calibration import (
    IDENTITY,
    Calibration,
    fit_calibration,
    load_calibration,
    save_calibration,
)


def test_without_labels_the_network_is_believed():
    assert [IDENTITY(iou) for iou in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]
    assert IDENTITY.name == ""


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
    assert fit_calibration([0.9] * 19, [0.1] * 19) is IDENTITY


@pytest.mark.parametrize(("predicted", "true"), [([0.1] * 20, [0.1] * 19), ([float("nan")] * 20, [0.1] * 20)])
def test_what_is_no_pair_is_refused(predicted, true):
    with pytest.raises(ValueError, match="pairs of finite numbers"):
        fit_calibration(predicted, true)


def test_it_is_kept_for_the_weights_that_it_was_fitted_on(tmp_path: Path):
    fitted = Calibration((0.2, 0.8), (0.1, 0.6), 20)
    save_calibration(tmp_path, "v0001", fitted)
    assert load_calibration(tmp_path, "v0001") == fitted
    assert load_calibration(tmp_path, "v0001").name == fitted.name
    assert load_calibration(tmp_path, "v0002") == IDENTITY
    assert (tmp_path / "calibration.json").is_file()


def test_without_one_or_with_a_damaged_one_the_network_is_believed(tmp_path: Path):
    assert load_calibration(tmp_path, "v0001") == IDENTITY
    save_calibration(tmp_path, "v0001", IDENTITY)
    (tmp_path / "calibration.json").write_text("{")
    assert load_calibration(tmp_path, "v0001") == IDENTITY
