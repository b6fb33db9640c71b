"""DICOM series and cine loops."""

import logging

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from lib.errors import ImageError, ImageTooLargeError
from lib.images.dicom import read_dicom
from lib.images.reading import read_image

MANY = 10**9


@pytest.fixture
def series(tmp_path, ct_slice):
    """Four slices of 6 rows and 5 columns, in files whose names are in another order."""
    stored = np.arange(4 * 6 * 5).reshape(4, 6, 5) * 10 + 500
    for name, k in zip("dacb", range(4), strict=True):
        ct_slice(tmp_path / f"{name}.dcm", stored[k], 10 + 2.5 * k, WindowCenter=40, WindowWidth=400)
    return tmp_path, stored


def test_a_series_is_columns_rows_slices_in_hounsfield_units(series):
    folder, stored = series
    image = read_image(folder, MANY)
    assert image.shape == (5, 6, 4)
    assert np.array_equal(image.array, stored.transpose(2, 1, 0) - 1024)
    assert image.array.dtype == np.int16
    assert (image.modality, image.format, image.is_2d) == ("CT", "dicom", False)


def test_slices_lie_where_their_positions_say(series):
    folder, _ = series
    affine = read_image(folder, MANY).affine
    # ImagePositionPatient is LPS; spacing between columns is 0.7, between rows 0.9, between slices 2.5.
    assert affine @ [0, 0, 0, 1] == pytest.approx([20, 30, 10, 1])
    assert affine @ [3, 2, 1, 1] == pytest.approx([20 - 3 * 0.7, 30 - 2 * 0.9, 12.5, 1])


def test_the_window_is_that_of_the_tags(series):
    folder, _ = series
    window = read_image(folder, MANY).window()
    # PS3.3 C.11.2.1.2: 40 - 0.5 - 399 / 2 and 40 - 0.5 + 399 / 2.
    assert (window.low, window.high, window.source) == (-160.0, 239.0, "dicom")


def test_a_slope_that_is_no_integer_is_applied(tmp_path, ct_slice):
    ct_slice(
        tmp_path / "a.dcm", np.array([[0, 10], [20, 30]]), 0, RescaleSlope="0.25", RescaleIntercept="-1.5"
    )
    image = read_image(tmp_path / "a.dcm", MANY)
    assert image.array[:, :, 0].T.tolist() == [[-1.5, 1.0], [3.5, 6.0]]
    assert image.array.dtype == np.float32


def test_a_negative_is_turned_over_and_loses_its_window(tmp_path, ct_slice):
    stored = np.arange(1000, 1012).reshape(3, 4)
    elements = {"WindowCenter": 0, "WindowWidth": 30, "PhotometricInterpretation": "MONOCHROME1"}
    image = read_image(ct_slice(tmp_path / "a.dcm", stored, 0, **elements), MANY)
    greys = image.array[:, :, 0].T.astype(int)
    # Black where the file's highest values are.
    assert (np.diff(greys.ravel()) == -1).all()
    assert image.dicom_window is None


def test_a_file_without_a_suffix_is_known_by_its_mark(tmp_path, ct_slice):
    ct_slice(tmp_path / "IM0001", np.full((3, 4), 1024), 0)
    image = read_image(tmp_path / "IM0001", MANY)
    assert (image.shape, image.format) == ((4, 3, 1), "dicom")


def test_the_first_of_two_series_is_opened_and_the_log_says_so(tmp_path, ct_slice, caplog):
    ct_slice(tmp_path / "a.dcm", np.full((3, 4), 1024), 0, series="1.2.3")
    ct_slice(tmp_path / "b.dcm", np.full((3, 4), 1034), 0, series="1.2.4")
    with caplog.at_level(logging.WARNING):
        image = read_image(tmp_path, MANY)
    first = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(tmp_path))[0]
    assert "2 DICOM series" in caplog.text
    assert (image.array == (0 if first.startswith("1.2.3") else 10)).all()


def test_a_series_is_measured_before_it_is_loaded(series):
    folder, _ = series
    assert read_dicom(folder, 120).array.size == 120
    with pytest.raises(ImageTooLargeError, match="5 x 6 x 4 = 120 voxels"):
        read_dicom(folder, 119)


def test_slices_of_two_sizes_are_refused(tmp_path, ct_slice):
    ct_slice(tmp_path / "a.dcm", np.zeros((3, 4)), 0)
    ct_slice(tmp_path / "b.dcm", np.zeros((5, 4)), 2.5)
    with pytest.raises(ImageError, match=tmp_path.name):
        read_image(tmp_path, MANY)


def test_a_dicom_file_without_pixels_is_refused(tmp_path, ct_slice):
    path = ct_slice(tmp_path / "a.dcm", np.zeros((3, 4)), 0)
    report = pydicom.dcmread(path)
    for name in ("PixelData", "Rows", "Columns"):
        delattr(report, name)
    report.save_as(path)
    with pytest.raises(ImageError, match="0 x 0 x 1 voxels"):
        read_image(path, MANY)


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ImageError, match="no DICOM series"):
        read_image(tmp_path, MANY)


def test_a_cut_off_file_is_refused(tmp_path, ct_slice):
    path = ct_slice(tmp_path / "a.dcm", np.full((60, 50), 1024), 0)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match=r"a\.dcm"):
        read_image(path, MANY)


def test_a_cine_loop_is_colour_frames_along_the_third_axis(tmp_path, ultrasound):
    frames = np.random.default_rng(0).integers(0, 256, (7, 20, 30, 3)).astype(np.uint8)
    image = read_image(ultrasound(tmp_path / "us.dcm", frames), MANY)
    assert (image.shape, image.is_rgb, image.modality) == ((30, 20, 7), True, "US")
    assert np.array_equal(image.array, frames.transpose(2, 1, 0, 3))
    assert image.window().source == "levels"


def test_a_real_echo_has_the_pixels_that_another_decoder_sees(data):
    image = read_image(data / "dicom" / "echo_a4c.dcm", MANY)
    dataset = pydicom.dcmread(data / "dicom" / "echo_a4c.dcm")
    assert image.shape == (dataset.Columns, dataset.Rows, dataset.NumberOfFrames)
    with Image.open(data / "video" / "echo_a4c" / "frames" / "00000.jpg") as picture:
        expected = np.asarray(picture.convert("RGB")).astype(int)
    # The frame was compressed once more as JPEG.
    assert np.abs(image.array[:, :, 0].swapaxes(0, 1) - expected).mean() < 0.5
