"""DICOM series and cine loops."""

import io
import logging

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.encaps import encapsulate, generate_pixel_data_frame
from pydicom.uid import JPEGBaseline8Bit

from lib.errors import ImageError, ImageTooLargeError
from lib.images.dicom import read_dicom, save_as_nifti
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


def test_a_series_as_nifti_is_the_same_image_with_the_same_window(series):
    folder, _ = series
    kept = folder.parent / "kept"
    folder.rename(kept)
    assert save_as_nifti(kept, kept.with_name("kept.nii.gz"), MANY)
    opened, converted = read_image(kept, MANY), read_image(kept.with_name("kept.nii.gz"), MANY)
    assert converted.digest == opened.digest
    np.testing.assert_allclose(converted.affine, opened.affine, atol=1e-5)
    # The window is that of the series beside it: PS3.3 C.11.2.1.2.
    assert (converted.modality, converted.dicom_window) == ("CT", (-160.0, 239.0))


def test_colours_and_bad_series_are_no_nifti(tmp_path, ultrasound, ct_slice):
    for name in ("loop", "gap"):
        (tmp_path / name).mkdir()
    ultrasound(tmp_path / "loop" / "a.dcm", np.zeros((3, 8, 10, 3), np.uint8))
    assert not save_as_nifti(tmp_path / "loop", tmp_path / "loop.nii.gz", MANY)
    for k in (0, 1, 2, 4):
        ct_slice(tmp_path / "gap" / f"{k}.dcm", np.zeros((6, 5)), 2.5 * k)
    with pytest.raises(ImageError, match="1 of its slices are missing"):
        save_as_nifti(tmp_path / "gap", tmp_path / "gap.nii.gz", MANY)
    assert not list(tmp_path.glob("*.nii.gz"))


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "PALETTE COLOR"])
def test_a_loop_in_other_colour_spaces_is_red_green_and_blue(tmp_path, ultrasound, photometric):
    """As echo machines store it: JPEG frames, or a table of colours."""
    frames = np.zeros((3, 16, 24, 3), np.uint8)
    frames[:, :8], frames[1:, 8:] = (200, 40, 40), (40, 60, 210)
    path = ultrasound(tmp_path / "a.dcm", frames)
    (as_jpeg if photometric == "YBR_FULL_422" else as_palette)(path, frames)
    image = read_image(path, MANY)
    assert (image.shape, image.is_rgb) == ((24, 16, 3), True)
    assert np.abs(image.array.transpose(2, 1, 0, 3).astype(int) - frames).mean() < 3


def as_jpeg(path, frames):
    made = pydicom.dcmread(path)
    items = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=95, subsampling="4:2:2")
        items.append(buffer.getvalue())
    made.PixelData = encapsulate(items)
    made["PixelData"].is_undefined_length = True
    made.PhotometricInterpretation = "YBR_FULL_422"
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.save_as(path)


def as_palette(path, frames):
    made = pydicom.dcmread(path)
    colours, indices = np.unique(frames.reshape(-1, 3), axis=0, return_inverse=True)
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "PALETTE COLOR"
    del made.PlanarConfiguration
    for number, name in enumerate(("Red", "Green", "Blue")):
        table = np.zeros(256, "<u2")
        table[: len(colours)] = colours[:, number].astype(int) * 257
        made.add_new(0x00281101 + number, "US", [256, 0, 16])
        setattr(made, f"{name}PaletteColorLookupTableData", table.tobytes())
    made.PixelData = indices.astype(np.uint8).tobytes()
    made.save_as(path)


def test_a_real_echo_is_a_loop_of_frames(data):
    image = read_image(data / "dicom" / "echo_a4c.dcm", MANY)
    assert (image.shape, image.is_rgb, image.modality) == ((320, 240, 30), True, "US")
    dataset = pydicom.dcmread(data / "dicom" / "echo_a4c.dcm")
    item = next(generate_pixel_data_frame(dataset.PixelData, 30))
    first = np.asarray(Image.open(io.BytesIO(item)).convert("RGB"))
    np.testing.assert_array_equal(image.array[:, :, 0].swapaxes(0, 1), first)
