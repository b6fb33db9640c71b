"""DICOM series and cine loops; what differs from slice to slice; what anonymizers and gantries leave."""

import io
import itertools
import logging
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, generate_pixel_data_frame
from pydicom.tag import Tag
from pydicom.uid import UID, JPEGBaseline8Bit, RLELossless

from lib.errors import ImageError, ImageTooLargeError
from lib.images.dicom import read_dicom, save_as_nifti, why_no_nifti
from lib.images.reading import read_image
from tests.unit.conftest import group_of, many_frames

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


SLICES = 5
PLACES = {"first": 0, "middle": SLICES // 2, "last": SLICES - 1}
RNG = np.random.default_rng(0)
STORED = RNG.integers(100, 4000, (SLICES, 7, 6)).astype(np.uint16)


def write_slices(folder, ct_slice, odd=None, place=0, stored=STORED, **common):
    """A series of which one slice has other elements."""
    folder.mkdir()
    return [
        ct_slice(folder / f"{k}.dcm", pixels, 2.5 * k, **{**common, **(odd if odd and k == place else {})})
        for k, pixels in enumerate(stored)
    ]


def write_frames(files, path):
    """The same as the frames of one enhanced file, each with its own rescaling and window."""
    many_frames(files, path)
    made = pydicom.dcmread(path)
    del made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for frame, file in zip(made.PerFrameFunctionalGroupsSequence, files, strict=True):
        one = pydicom.dcmread(file)
        frame.PixelValueTransformationSequence = [group_of(one, "RescaleSlope", "RescaleIntercept")]
        if "WindowCenter" in one:
            frame.FrameVOILUTSequence = [group_of(one, "WindowCenter", "WindowWidth")]
    for name in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        if name in made:
            delattr(made, name)
    made.save_as(path)
    return path


def expected(files):
    """Values of the slices by the standard: stored value times slope plus intercept (PS3.3, C.11.1)."""
    found = []
    for file in files:
        one = pydicom.dcmread(file)
        values = one.pixel_array.astype(float)
        if one.PhotometricInterpretation == "MONOCHROME1":
            low = -(2 ** (one.BitsStored - 1)) if one.PixelRepresentation else 0
            values = 2 * low + 2**one.BitsStored - 1 - values
        found.append(values * float(one.RescaleSlope) + float(one.RescaleIntercept))
    return np.stack(found).transpose(2, 1, 0)


RESCALES = {
    "slope 1, others small": (
        {"RescaleSlope": "1", "RescaleIntercept": "0"},
        {"RescaleSlope": "0.000025", "RescaleIntercept": "0"},
    ),
    "slope small, others 1": ({"RescaleSlope": "0.0003"}, {}),
    "slope of its own": ({"RescaleSlope": "3"}, {"RescaleSlope": "2"}),
    "no intercept, others have one": ({"RescaleIntercept": "0"}, {"RescaleIntercept": "-1024"}),
    "intercept of its own": ({"RescaleIntercept": "-40000"}, {"RescaleIntercept": "0"}),
    "intercept that is not whole": ({"RescaleIntercept": "-0.5"}, {}),
}


@pytest.mark.parametrize("name", RESCALES)
def test_each_slice_and_frame_has_its_own_rescaling(tmp_path, ct_slice, name):
    odd, common = RESCALES[name]
    for place, k in PLACES.items():
        files = write_slices(tmp_path / place, ct_slice, odd, k, **common)
        truth = expected(files)
        for path in (files[0].parent, write_frames(files, tmp_path / f"{place}.dcm")):
            image = read_image(path, MANY)
            np.testing.assert_allclose(image.array, truth, rtol=1e-6, atol=1e-4, err_msg=f"{place} {path}")
            assert (image.array.dtype == np.float32) == bool((truth % 1).any())
            for slice_index in (0, SLICES // 2, SLICES - 1):
                where = image.affine @ [2, 3, slice_index, 1]
                assert where[:3] == pytest.approx([20 - 2 * 0.7, 30 - 3 * 0.9, 2.5 * slice_index])


PIXELS = {
    "8 bits": {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
    "12 bits": {"BitsStored": 12, "HighBit": 11},
    "signed": {"PixelRepresentation": 1},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1"},
    "inverted, 12 bits": {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11},
}


def as_pixels(name, stored):
    """Stored values of a slice as one kind of pixels, and the elements that say so."""
    if name == "8 bits":
        return stored, {**PIXELS[name], "PixelData": (stored % 256).astype(np.uint8).tobytes()}
    # Below zero as two's complement.
    return stored - np.uint16(3000 if name == "signed" else 0), PIXELS[name]


@pytest.mark.parametrize("name", PIXELS)
def test_kinds_of_pixels_and_rescalings_of_one_slice_or_frame(tmp_path, ct_slice, name):
    for (odd, common), k in itertools.product([({}, {}), *RESCALES.values()], PLACES.values()):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        stored = STORED.copy()
        stored[k], elements = as_pixels(name, stored[k])
        files = write_slices(folder / "a", ct_slice, {**odd, **elements}, k, stored, **common)
        found = read_image(files[0].parent, MANY).array
        np.testing.assert_allclose(found, expected(files), rtol=1e-6, atol=1e-4, err_msg=f"{odd} {k}")
        # Frames share their kind of pixels, and each has its own rescaling.
        (folder / "b").mkdir()
        for number, file in enumerate(files):
            pixels, elements = as_pixels(name, STORED[number])
            rescaling = {**common, **(odd if number == k else {})}
            ct_slice(folder / "b" / file.name, pixels, 2.5 * number, **elements, **rescaling)
        files = sorted((folder / "b").iterdir())
        found = read_image(write_frames(files, folder / "c.dcm"), MANY).array
        np.testing.assert_allclose(found, expected(files), rtol=1e-6, atol=1e-4, err_msg=f"{odd} {k}, frames")


def test_one_odd_window_does_not_change_that_of_the_series(tmp_path, ct_slice):
    common = {"WindowCenter": 40, "WindowWidth": 400}
    odd = {"WindowCenter": 3000, "WindowWidth": 20}
    for place, k in PLACES.items():
        files = write_slices(tmp_path / place, ct_slice, odd, k, **common)
        for path in (files[0].parent, write_frames(files, tmp_path / f"{place}.dcm")):
            assert read_image(path, MANY).dicom_window == (-160.0, 239.0)
        files = write_slices(tmp_path / f"{place} alone", ct_slice, common, k)
        assert read_image(files[0].parent, MANY).dicom_window == (-160.0, 239.0)


def set_raw(file, tag, vr, text):
    """Writes an element as it stands in files: pydicom itself refuses such values."""
    dataset = pydicom.dcmread(file)
    value = text.encode() + b" " * (len(text) % 2)
    dataset._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    dataset.save_as(file, write_like_original=False)


@pytest.mark.parametrize(
    ("tag", "vr", "text"),
    [
        (0x00281050, "DS", "40,5"),
        (0x00281051, "DS", "N/A"),
        (0x00281050, "DS", "nan"),
        (0x00281056, "CS", "whatever this is"),
        (0x00080020, "DA", "20200000"),
        (0x00080030, "TM", "12:00:00"),
        (0x00100030, "DA", "unknown"),
        (0x00101010, "AS", "old"),
        (0x00200013, "IS", "one"),
        (0x00180050, "DS", "thin"),
        (0x00080060, "CS", "C T!"),
    ],
)
def test_an_odd_optional_tag_stops_no_image_and_is_in_the_log(tmp_path, ct_slice, caplog, tag, vr, text):
    files = write_slices(tmp_path / "a", ct_slice, WindowCenter=40, WindowWidth=400)
    for file in files:
        set_raw(file, tag, vr, text)
    with caplog.at_level(logging.WARNING):
        image = read_image(tmp_path / "a", MANY)
        assert save_as_nifti(tmp_path / "a", tmp_path / "b.nii.gz", MANY)
    np.testing.assert_array_equal(image.array, expected(files))
    if tag in (0x00281050, 0x00281051):
        assert "Window" in caplog.text


@pytest.mark.parametrize("place", PLACES)
def test_pixels_that_are_too_short_are_refused(tmp_path, ct_slice, place):
    files = write_slices(tmp_path / "a", ct_slice)
    dataset = pydicom.dcmread(files[PLACES[place]])
    dataset.PixelData = dataset.PixelData[:-20]
    dataset.save_as(files[PLACES[place]])
    with pytest.raises(ImageError, match=r"cut off: its header promises 84 bytes of pixels and it holds 64"):
        read_image(tmp_path / "a", MANY)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_fewer_frames_than_promised_are_refused(tmp_path, ultrasound, is_compressed):
    frames = RNG.integers(0, 255, (4, 20, 30, 3)).astype(np.uint8)
    path = ultrasound(tmp_path / "a.dcm", frames)
    if is_compressed:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    assert np.array_equal(read_image(path, MANY).array, frames.transpose(2, 1, 0, 3))
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 6
    dataset.save_as(path)
    with pytest.raises(ImageError, match=r"cut off: .*(4 of its 6 frames|promises 10800 bytes)"):
        read_image(path, MANY)


def test_several_clips_or_stills_in_one_series_are_named(tmp_path, ultrasound):
    loop = np.zeros((6, 20, 30, 3), np.uint8)
    for name, frames in (("a", loop), ("b", loop), ("c", loop[:1])):
        path = ultrasound(tmp_path / f"{name}.dcm", frames)
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3", "1.2"
        dataset.save_as(path)
    with pytest.raises(ImageError, match=r"2 clips or volumes \(6, 6 frames\) and 1 single pictures"):
        read_image(tmp_path, MANY)
    (tmp_path / "c.dcm").unlink()
    with pytest.raises(ImageError, match=r"2 clips or volumes \(6, 6 frames\), and an image is one"):
        read_image(tmp_path, MANY)


def test_colours_among_greys_are_refused(tmp_path, ct_slice):
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    odd = {**colour, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": bytes(126)}
    write_slices(tmp_path / "a", ct_slice, odd, 2)
    with pytest.raises(ImageError, match="several numbers of channels"):
        read_image(tmp_path / "a", MANY)


@pytest.mark.parametrize("degrees", [2, 10, 20, 30])
def test_a_tilted_gantry_keeps_every_voxel_in_its_place(tmp_path, ct_slice, degrees):
    shift = 2.5 * np.tan(np.deg2rad(degrees))
    (tmp_path / "a").mkdir()
    files = [
        ct_slice(
            tmp_path / "a" / f"{k}.dcm", pixels, 2.5 * k, ImagePositionPatient=[-20, -30 + shift * k, 2.5 * k]
        )
        for k, pixels in enumerate(STORED)
    ]
    image = read_image(tmp_path / "a", MANY)
    np.testing.assert_array_equal(image.array, expected(files))
    for k, file in enumerate(files):
        left, back, up = sitk.ReadImage(str(file)).TransformIndexToPhysicalPoint((2, 3, 0))
        assert image.affine @ [2, 3, k, 1] == pytest.approx([-left, -back, up, 1], abs=1e-4)
    assert bool(why_no_nifti(tmp_path / "a")) == (degrees > 2)
    if degrees > 2:
        with pytest.raises(ImageError, match="tilted gantry, which NIfTI cannot hold"):
            save_as_nifti(tmp_path / "a", tmp_path / "b.nii.gz", MANY)


def test_slices_that_are_shifted_unevenly_are_refused(tmp_path, ct_slice):
    (tmp_path / "a").mkdir()
    for k, pixels in enumerate(STORED):
        ct_slice(
            tmp_path / "a" / f"{k}.dcm", pixels, 0, ImagePositionPatient=[-20, -30 + 4 * (k == 2), 2.5 * k]
        )
    with pytest.raises(ImageError, match=r"shifted against each other \(slice 3 by 5\.7 pixels\)"):
        read_image(tmp_path / "a", MANY)


def test_what_cannot_be_decoded_is_named(tmp_path, ct_slice):
    path = ct_slice(tmp_path / "a.dcm", STORED[0], 0)
    for syntax, words in (
        ("1.2.840.10008.1.2.4.102", r"holds a video \(MPEG-4.*export the loop as frames"),
        ("1.2.840.10008.1.2.4.70", r"cannot be decoded \(JPEG Lossless.*export it uncompressed"),
    ):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        dataset.PixelData = encapsulate([b"\0\0\0\x20ftypisom" + b"\0" * 200])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(tmp_path / "b.dcm")
        with pytest.raises(ImageError, match=words):
            read_image(tmp_path / "b.dcm", MANY)
    for name, values in (
        ("FloatPixelData", STORED[0].astype("<f4")),
        ("DoubleFloatPixelData", STORED[0].astype("<f8")),
    ):
        dataset = pydicom.dcmread(path)
        del dataset.PixelData
        setattr(dataset, name, values.tobytes())
        dataset.save_as(tmp_path / "b.dcm")
        with pytest.raises(ImageError, match=r"floating point numbers .*NIfTI"):
            read_image(tmp_path / "b.dcm", MANY)


def test_a_place_that_is_no_number_is_refused(tmp_path, ct_slice):
    path = ct_slice(tmp_path / "a.dcm", STORED[0], 0)
    set_raw(path, 0x00281053, "DS", "1,5")
    with pytest.raises(ImageError, match="its RescaleSlope is no number"):
        read_image(path, MANY)
