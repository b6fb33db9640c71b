"""Headers of a series, matched with the slices of the image."""

import numpy as np
import pydicom
import pytest

from lib.errors import LabelError
from lib.images.reading import read_image
from lib.labels.seg_sources import source_headers
from sample_study.dicom import write_multiframe_ultrasound, write_series
from tests.unit.labels.conftest import GRIDS

MANY = 10**9


@pytest.fixture
def series(tmp_path):
    affine, _ = GRIDS["oblique"]
    made = write_series(tmp_path / "a", np.zeros((8, 6, 5), np.int16), affine, instances="descending")
    return made, read_image(tmp_path / "a", MANY)


def test_each_header_knows_its_slice_in_any_order(series):
    made, image = series
    shuffled = [made.files[k] for k in (3, 0, 4, 1, 2)]
    sources = source_headers(shuffled, image)
    assert (sources.slices, sources.is_placed) == ([3, 0, 4, 1, 2], True)
    assert {header.SpacingBetweenSlices for header in sources.headers} == {1.5}


def test_another_series_is_refused(series, tmp_path):
    made, image = series
    affine = GRIDS["oblique"][0].copy()
    affine[:3, 3] += 5
    other = write_series(tmp_path / "b", np.zeros((8, 6, 5), np.int16), affine)
    with pytest.raises(LabelError, match="lies elsewhere than the DICOM series"):
        source_headers(other.files, image)
    larger = write_series(tmp_path / "c", np.zeros((9, 6, 5), np.int16), affine)
    with pytest.raises(LabelError, match="slices of different sizes"):
        source_headers(larger.files, image)
    with pytest.raises(LabelError, match="lies elsewhere"):
        source_headers([*made.files[:4], made.files[0]], image)


def test_a_tilted_gantry_is_named(series):
    made, image = series
    for number, file in enumerate(made.files):
        dataset = pydicom.dcmread(file)
        x, y, z = dataset.ImagePositionPatient
        along = np.array(dataset.ImageOrientationPatient[3:], dtype=float) * 0.6 * number
        dataset.ImagePositionPatient = [x + along[0], y + along[1], z + along[2]]
        dataset.save_as(file)
    with pytest.raises(LabelError, match="shifted against each other, as those of a tilted gantry"):
        source_headers(made.files, image)


def test_frames_of_a_loop_have_no_place(tmp_path):
    made = write_multiframe_ultrasound(tmp_path / "a", np.zeros((4, 6, 8), np.uint8))
    sources = source_headers(made.files, read_image(made.files[0], MANY))
    assert (sources.slices, sources.is_placed) == ([0, 1, 2, 3], False)
    other = write_multiframe_ultrasound(tmp_path / "b", np.zeros((3, 6, 8), np.uint8))
    with pytest.raises(LabelError, match="4 slices and the DICOM file 3 frames"):
        source_headers(other.files, read_image(made.files[0], MANY))
