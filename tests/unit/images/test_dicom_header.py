"""Where a DICOM file can say how it wants to be shown."""

import numpy as np
import pydicom
import pytest

from lib.images.dicom_header import common_window, headers_beside, read_header


@pytest.fixture
def tagged(tmp_path, ct_slice):
    return lambda **elements: read_header(ct_slice(tmp_path / "a.dcm", np.zeros((3, 4)), 0, **elements))


def test_a_file_without_a_window(tagged):
    header = tagged()
    assert (header.modality, common_window([header]), header.size) == ("CT", None, (4, 3, 1))


def test_frames_are_counted(tagged):
    assert tagged(NumberOfFrames=30).size == (4, 3, 30)


def test_the_first_of_several_windows(tagged):
    assert common_window([tagged(WindowCenter=[-600, 40], WindowWidth=[1501, 400])]) == (-1350.5, 149.5)
    assert common_window([tagged(WindowCenter=[-600, ""], WindowWidth=[1501, ""])]) == (-1350.5, 149.5)


def test_the_exact_function(tagged):
    assert common_window([tagged(WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")]) == (
        -160.0,
        240.0,
    )


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 40},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 40, "WindowWidth": 0},
    ],
)
def test_half_a_window_is_none(tagged, elements):
    assert common_window([tagged(**elements)]) is None


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_an_enhanced_file_has_its_window_in_its_groups(tagged, groups):
    voi, group = pydicom.Dataset(), pydicom.Dataset()
    voi.WindowCenter, voi.WindowWidth = 50, 101
    group.FrameVOILUTSequence = [voi]
    assert common_window([tagged(**{groups: [group]})]) == (-0.5, 99.5)


def test_nothing_lies_beside(tmp_path):
    assert headers_beside(tmp_path / "a.nii.gz") == []
