"""Series that are no even stack of slices, and what is said of them."""

import logging

import numpy as np
import pydicom
import pytest

from lib.errors import ImageError
from lib.images.dicom import series_files
from lib.images.dicom_header import read_header
from lib.images.dicom_stack import require_one_stack
from lib.images.reading import read_image
from sample_study.dicom import write_series
from tests.unit.conftest import AFFINES, many_frames

MANY = 10**9


@pytest.fixture
def series(tmp_path):
    """Function that writes a series and returns its files."""

    def write(affine=AFFINES["LPS"], slices=8, **options):
        rng = np.random.default_rng(0)
        image = rng.integers(0, 100, (6, 5, slices)).astype(np.int16)
        return list(write_series(tmp_path / "series", image, affine, **options).files)

    return write


def require_even_stack(files):
    require_one_stack([read_header(file) for file in files])


def changed(file, **elements):
    """Sets elements of a file."""
    dataset = pydicom.dcmread(file)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(file)


def moved(file, millimetres):
    """Moves a slice along z."""
    x, y, z = pydicom.dcmread(file).ImagePositionPatient
    changed(file, ImagePositionPatient=[x, y, z + millimetres])


@pytest.mark.parametrize("instances", ["ascending", "descending"])
def test_an_even_stack_is_one_in_any_orientation(series, affine, instances):
    files = series(affine, instances=instances)
    require_even_stack(files[::-1])
    assert read_image(files[0].parent, MANY).shape == (6, 5, 8)


@pytest.mark.parametrize(("gone", "count", "where"), [([3], 1, "3 and 4 of 7"), ([4, 5], 2, "4 and 5 of 6")])
def test_a_missing_slice_is_named_with_its_place(series, gone, count, where):
    files = series()
    for k in gone:
        files[k].unlink()
    folder = files[0].parent
    distance = 3 * (count + 1)
    with pytest.raises(
        ImageError,
        match=rf"series: {count} of its slices are missing: between slice {where} \(at .*\) are "
        rf"{distance:.2f} mm, where slices are 3\.00 mm apart; send the series again",
    ):
        read_image(folder, MANY)


def test_the_first_and_the_last_slice_can_be_absent(series):
    files = series()
    files[0].unlink()
    files[-1].unlink()
    assert read_image(files[0].parent, MANY).shape == (6, 5, 6)


def test_a_localizer_is_refused_by_its_directions(series):
    files = series(slices=3)
    changed(files[1], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    changed(files[2], ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    with pytest.raises(ImageError, match=r"several directions \(2 of 3 are turned .*localizer"):
        read_image(files[0].parent, MANY)


def test_slices_of_two_sizes_are_counted(series):
    files = series()
    dataset = pydicom.dcmread(files[2])
    dataset.Rows, dataset.Columns = 4, 5
    dataset.PixelData = bytes(2 * 4 * 5)
    dataset.save_as(files[2])
    with pytest.raises(ImageError, match=r"several sizes \(7 of 6 x 5, 1 of 5 x 4\)"):
        read_image(files[0].parent, MANY)


def test_two_pixel_spacings_are_refused(series):
    files = series()
    changed(files[2], PixelSpacing=[0.5, 0.5])
    with pytest.raises(ImageError, match=r"several pixel spacings \(7 of 0.9 x 0.7, 1 of 0.5 x 0.5\)"):
        require_even_stack(files)


def test_several_time_points_are_no_volume(series):
    files = series()
    for k in range(4):
        position = pydicom.dcmread(files[k]).ImagePositionPatient
        changed(files[k + 4], ImagePositionPatient=position)
    with pytest.raises(ImageError, match=r"8 slices lie at 4 places .*time points, echoes or phases"):
        read_image(files[0].parent, MANY)


def test_all_slices_at_one_place(series):
    files = series(slices=3)
    position = pydicom.dcmread(files[0]).ImagePositionPatient
    for file in files:
        changed(file, ImagePositionPatient=position)
    with pytest.raises(ImageError, match="3 slices lie at 1 places"):
        require_even_stack(files)


def test_uneven_slices_are_refused_and_rounded_ones_are_not(series):
    files = series()
    moved(files[3], 0.02)
    require_even_stack(files)
    # 3 mm apart, then 4.4 mm: no gap is wide enough for a slice, and yet they run out of step.
    for k in range(4, 8):
        moved(files[k], 1.4 * (k - 3))
    with pytest.raises(ImageError, match=r"not evenly spaced \(from .* to 4\.40 mm apart"):
        require_even_stack(files)


def test_slices_without_a_position_are_taken_in_their_order(tmp_path):
    image = np.zeros((6, 5, 3), np.int16)
    files = write_series(tmp_path / "sc", image, np.eye(4), modality="OT").files
    for file in files:
        dataset = pydicom.dcmread(file)
        del dataset.ImagePositionPatient
        dataset.save_as(file)
    require_even_stack(files)


def test_frames_of_one_file_are_an_even_stack_too(series, tmp_path, affine):
    files = series(affine)
    upwards = read_image(many_frames(files, tmp_path / "up.dcm"), MANY)
    downwards = read_image(many_frames(files[::-1], tmp_path / "down.dcm"), MANY)
    np.testing.assert_allclose(upwards.affine, affine, atol=1e-3)
    # The same voxels in the same places, whichever comes first.
    np.testing.assert_array_equal(downwards.array, upwards.array[:, :, ::-1])
    np.testing.assert_allclose(downwards.affine @ [1, 2, 7, 1], affine @ [1, 2, 0, 1], atol=1e-3)


def test_frames_that_are_no_stack_are_refused(series, tmp_path):
    files = series()
    with pytest.raises(ImageError, match=r"many\.dcm: 1 of its slices are missing: between slice 3 and 4"):
        read_image(many_frames(files[:3] + files[4:], tmp_path / "many.dcm"), MANY)
    with pytest.raises(ImageError, match="not in the order of their places"):
        read_image(many_frames(files[::2] + files[1::2], tmp_path / "many.dcm"), MANY)
    with pytest.raises(ImageError, match="8 slices lie at 4 places"):
        read_image(many_frames(files[:4] * 2, tmp_path / "many.dcm"), MANY)
    changed(many_frames(files, tmp_path / "many.dcm"), NumberOfFrames=9)
    with pytest.raises(ImageError, match=r"many\.dcm: its header describes 8 of its 9 frames"):
        read_image(tmp_path / "many.dcm", MANY)


def test_the_real_series_is_even(data, caplog):
    with caplog.at_level(logging.WARNING):
        require_even_stack(series_files(data / "dicom" / "dcmqi_ct"))
    assert not caplog.records
