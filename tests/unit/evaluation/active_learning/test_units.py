from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.hard_and_easy import write_store
from lib.errors import EvaluationError
from lib.evaluation.active_learning.units import choose_test, open_data

NAMES = [f"case{number}" for number in range(10)]
SIZE = 64


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "store", {"easy": 3, "rim": 1}, {"easy": 2})


def volume(store: Path) -> None:
    """A volume of 40 x 30 x 9 whose object is on the slices 3 to 5, at another place on each."""
    image, label = np.zeros((40, 30, 9), np.int16), np.zeros((40, 30, 9), np.uint8)
    for k in (3, 4, 5):
        label[5 * k : 5 * k + 8, 4:14, k] = 1
        image[..., k] = 10 * k
    image += 400 * label.astype(np.int16)
    nib.save(nib.Nifti1Image(image, np.diag([1, 2, 3, 1])), store / "volume.nii.gz")
    nib.save(nib.Nifti1Image(label, np.diag([1, 2, 3, 1])), store / "labels" / "final" / "volume.nii.gz")


def test_a_share_is_drawn_once_and_for_all() -> None:
    chosen = choose_test(NAMES, "0.3")
    assert len(chosen) == 3
    assert chosen < set(NAMES)
    assert choose_test(NAMES[::-1], "0.3") == chosen
    assert len(choose_test(NAMES, "0.01")) == 1


def test_a_pattern_names_the_test_part() -> None:
    assert choose_test(["test1", "a", "test2"], "test*") == {"test1", "test2"}
    assert choose_test(["test1", "a", "test2"], "a") == {"a"}


def test_a_share_is_less_than_all_and_more_than_nothing() -> None:
    for share in ("0", "1", "-0.5", "3"):
        with pytest.raises(EvaluationError, match=f"--test {share} must be a share"):
            choose_test(NAMES, share)


def test_images_are_divided_and_nothing_is_in_both_parts(store: Path, tmp_path: Path) -> None:
    parts = open_data(store, tmp_path / "frames", "image", "test*", SIZE)
    assert [unit.id for unit in parts.pool] == [
        "pool_easy_000", "pool_easy_001", "pool_easy_002", "pool_rim_000",
    ]  # fmt: skip
    assert [unit.id for unit in parts.test] == ["test_easy_000", "test_easy_001"]
    assert parts.left_out == {}


def test_a_volume_is_labelled_slice_by_slice_where_that_is_asked_for(store: Path, tmp_path: Path) -> None:
    volume(store)
    parts = open_data(store, tmp_path / "frames", "slice", "test*", SIZE)
    slices = [unit for unit in parts.pool if unit.id.startswith("volume")]
    # Of the slices that are kept (1 to 7), those with an object.
    assert [unit.id for unit in slices] == ["volume#002", "volume#003", "volume#004"]
    assert len({unit.digest for unit in slices}) == 3
    for k, unit in zip((3, 4, 5), slices, strict=True):
        assert len(unit) == 1
        truth = np.zeros((30, 40), dtype=bool)
        truth[4:14, 5 * k : 5 * k + 8] = True
        np.testing.assert_array_equal(unit.mask(0, 1), truth)
        levels = unit[0][..., 0]
        assert levels[truth].min() > levels[~truth].max()
        assert unit.objects == ({1: 80},)


def test_a_whole_volume_is_one_image_and_measures_as_one(store: Path, tmp_path: Path) -> None:
    volume(store)
    parts = open_data(store, tmp_path / "frames", "image", "volume", SIZE)
    [image] = parts.test
    assert len(image) == 7
    assert len(parts.pool) == 6


def test_what_cannot_be_used_is_left_out_with_its_reason(store: Path, tmp_path: Path) -> None:
    (store / "pool_easy_001.png").write_bytes(b"no picture")
    (store / "labels" / "final" / "lonely.png").write_bytes(b"no image of its name")
    parts = open_data(store, tmp_path / "frames", "image", "test*", SIZE)
    assert len(parts.pool) == 3
    assert list(parts.left_out) == ["pool_easy_001"]


def test_too_few_to_divide_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"0 image\(s\) to test, .* another --test than 'none\*'"):
        open_data(store, tmp_path / "frames", "image", "none*", SIZE)
    with pytest.raises(EvaluationError, match=r"has 1 image\(s\) to label"):
        open_data(store, tmp_path / "frames", "image", "*easy*", SIZE)
