"""Which intensities become black and white, for every kind of image."""

import numpy as np
import pytest

from lib.errors import ImageError, PromptError
from lib.transforms.windowing import IntensityWindow, choose_window, dicom_window


def ct_phantom(shape=(64, 64, 20), padding=None):
    """Air, lung, fat, soft tissue with noise, and bone, in HU."""
    rng = np.random.default_rng(1)
    volume = np.full(shape, -1000.0)
    volume[8:-8, 8:-8] = -100
    volume[16:-16, 16:-16] = 40
    volume[20:28, 20:28] = -800
    volume[34:38, 34:38] = 1200
    volume += rng.normal(0, 12, shape)
    if padding is not None:
        volume[:4] = padding
    return volume.round().astype(np.int16)


def test_levels_are_linear_rounded_and_clipped():
    window = IntensityWindow(-160, 240, "request")
    levels = window.apply(np.array([-1000, -160, -159, 40, 239, 240, 3000], dtype=np.int16))
    # (x + 160) / 400 * 255 by hand: 0.6375 -> 1, 127.5 -> 128 (to even), 254.36 -> 254.
    assert levels.tolist() == [0, 0, 1, 128, 254, 255, 255]
    assert levels.dtype == np.uint8


def test_every_type_gets_the_same_levels():
    for dtype in [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.float32, np.float64]:
        values = np.array([[10, 20], [40, 61]], dtype=dtype)
        assert IntensityWindow(10, 61, "request").apply(values).tolist() == [[0, 50], [150, 255]]


def test_large_numbers_keep_their_differences():
    values = np.array([2_000_000_000, 2_000_000_051, 2_000_000_255], dtype=np.int32)
    assert IntensityWindow(2e9, 2e9 + 255, "request").apply(values).tolist() == [0, 51, 255]


def test_the_widest_float32_range_neither_warns_nor_wraps():
    values = np.array([-3e38, 0, 3e38], dtype=np.float32)
    assert IntensityWindow(-3e38, 3e38, "percentiles").apply(values).tolist() == [0, 128, 255]


def test_ct_below_zero_hu_is_not_black():
    # Clipping to 0..255 shows fat, water and air as one black.
    volume = ct_phantom()
    window = choose_window(volume)
    assert (window.low, window.high, window.source) == (-160.0, 240.0, "ct")
    air, fat, water, liver = window.apply(np.array([-1000, -100, 0, 60], dtype=np.int16)).astype(int)
    assert air == 0
    assert fat >= 30
    assert water >= fat + 50
    assert liver >= water + 30


@pytest.mark.parametrize("padding", [-1024, -2000, -3024, -32768])
def test_padding_of_a_scanner_does_not_hide_that_it_is_ct(padding):
    assert choose_window(ct_phantom(padding=padding)).source == "ct"


def test_resampled_ct_in_floats_is_ct():
    assert choose_window(ct_phantom().astype(np.float32) + 0.25).source == "ct"


def test_a_ct_by_its_tags_need_not_show_air():
    crop = ct_phantom()[16:-16, 16:-16] + 0
    crop = np.where(crop < -300, 40, crop)
    assert choose_window(crop).source == "percentiles"
    assert choose_window(crop, modality="CT").source == "ct"


def test_no_other_modality_gets_the_ct_preset():
    assert choose_window(ct_phantom(), modality="MR").source == "percentiles"


@pytest.mark.parametrize("spread", [4096, 2500])
def test_a_phase_image_is_no_ct(spread):
    phase = np.random.default_rng(2).integers(-spread, spread, (64, 64, 8)).astype(np.int16)
    assert choose_window(phase).source == "percentiles"


def test_mr_is_stretched_between_percentiles_of_what_is_not_background():
    rng = np.random.default_rng(3)
    volume = np.zeros((80, 80, 40), np.int16)
    head = volume[20:60, 20:60, 10:30]
    head[...] = rng.integers(100, 1100, head.shape)
    volume[30, 30, 20] = 30000
    window = choose_window(volume)
    inside = head[head < 30000]
    assert window.source == "percentiles"
    assert window.low == pytest.approx(np.percentile(inside, 0.5), abs=5)
    assert window.high == pytest.approx(np.percentile(inside, 99.5), abs=5)


def test_a_background_that_is_no_extreme_is_left_out_too():
    image = np.random.default_rng(4).normal(0, 1, (100, 100)).astype(np.float32)
    image[:, 40:] = 0
    window = choose_window(image)
    assert window.low == pytest.approx(np.percentile(image[:, :40], 0.5), abs=0.05)


def test_8_bit_levels_are_unchanged():
    image = np.random.default_rng(5).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    window = choose_window(image)
    assert window == IntensityWindow(0.0, 255.0, "levels")
    assert np.array_equal(window.apply(image), image)


def test_8_bit_labels_are_stretched_so_that_they_show():
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 3
    levels = choose_window(labels).apply(labels)
    assert (levels.min(), levels.max()) == (0, 255)


A_CONSTANT_IMAGE_IS_UNIFORM = [
    (0, np.int16),
    (7, np.uint8),
    (-1000, np.int16),
    (0, np.float32),
    (1e-30, np.float32),
    (3e9, np.float32),
]


def test_a_constant_image_is_uniform():
    for value, dtype in A_CONSTANT_IMAGE_IS_UNIFORM:
        image = np.full((20, 20, 2), value, dtype)
        assert np.unique(choose_window(image).apply(image)).size == 1


def test_a_single_voxel_is_enough():
    assert choose_window(np.array([[[5]]], np.int16)).low == 5


def test_the_request_comes_first_then_dicom():
    volume = ct_phantom()
    assert choose_window(volume, requested=[-1350, 150], dicom=(0, 80), modality="CT") == IntensityWindow(
        -1350.0, 150.0, "request"
    )
    assert choose_window(volume, dicom=(0, 80), modality="CT") == IntensityWindow(0.0, 80.0, "dicom")


@pytest.mark.parametrize("dicom", [(-5000.0, -3000.0), (5000.0, 6000.0), (1200.5, 1200.6)])
def test_a_dicom_window_that_shows_nothing_is_left_out(dicom):
    assert choose_window(ct_phantom(), dicom=dicom).source == "ct"


def test_a_window_that_is_not_two_numbers_is_refused():
    for window in [[1], [1, 2, 3], [], "12", ["0", "1"], [None, 1], [True, 2], {"low": 0}, 5, [10**400, 1]]:
        with pytest.raises(PromptError, match=r"send \[low, high\]"):
            choose_window(np.zeros((2, 2)), requested=window)


def test_a_window_without_width_or_end_is_refused():
    for window in [[5, 5], [240, -160], [float("nan"), 1], [0, float("inf")], [-1e308, 1e308]]:
        with pytest.raises(PromptError, match="finite with low below high"):
            choose_window(np.zeros((2, 2)), requested=window)


def test_nan_in_what_is_looked_at_is_refused():
    with pytest.raises(ImageError, match="1 NaN and 0 infinite"):
        choose_window(np.array([[1.0, np.nan]]))


def test_a_huge_volume_is_judged_by_a_sample():
    # 512 x 512 x 1024 voxels of a broadcast row: 4 GB if anything touched all of them as doubles.
    row = np.linspace(0, 1000, 512, dtype=np.float32)
    volume = np.broadcast_to(row[:, None, None], (512, 512, 1024)).T[:, :, :16]
    window = choose_window(volume)
    assert (window.low, window.high) == (pytest.approx(0.5 / 100 * 30, abs=20), pytest.approx(30, abs=20))


DICOM_CENTRE_AND_WIDTH = [
    (40, 400, "LINEAR", (-160.0, 239.0)),  # c - 0.5 - 399/2, c - 0.5 + 399/2
    (2048, 4096, "LINEAR", (0.0, 4095.0)),  # the example of PS3.3 C.11.2.1.2.1
    (0, 1, "LINEAR", None),
    (40, 400, "LINEAR_EXACT", (-160.0, 240.0)),
    (40, 400, "SIGMOID", (-160.0, 240.0)),
    (0, 0, "LINEAR_EXACT", None),
    (10, -5, "LINEAR", None),
    (float("nan"), 5, "LINEAR", None),
]


def test_dicom_centre_and_width():
    for center, width, function, expected in DICOM_CENTRE_AND_WIDTH:
        assert dicom_window(center, width, function) == expected


def test_values_that_are_no_hounsfield_units_get_no_window_that_hides_them():
    rng = np.random.default_rng(0)
    body = rng.normal(600, 150, (60, 60, 10)).clip(0, 2000)
    body[:, :20] = rng.normal(100, 20, (60, 20, 10))
    padded = body.copy()
    padded[:15] = -1024
    raw = np.rint(ct_phantom() + 1024).clip(0).astype(np.uint16)
    for array, options in (
        (padded.astype(np.int16), {}),  # an MR with padding
        (raw, {"modality": "CT"}),  # a CT without its intercept
        (raw, {"modality": "CT", "dicom": (-160.0, 240.0)}),
    ):
        window = choose_window(array, **options)
        assert window.source == "percentiles", options
        levels = window.apply(array[..., 5])
        assert ((levels > 0) & (levels < 255)).mean() > 0.4
    # In Hounsfield units both windows are used.
    assert choose_window(ct_phantom(), modality="CT", dicom=(-160.0, 240.0)).source == "dicom"
    assert choose_window(ct_phantom(), modality="CT").source == "ct"
