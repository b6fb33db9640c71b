from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.infers.task import answer_extension, devices


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("1.2.840.113.nii.gz", ".nii.gz"),
        ("a.nii", ".nii"),
        ("a.nrrd", ".nrrd"),
        ("1.2.840.nrrd", ".nrrd"),
        ("a.seg.nrrd", ".seg.nrrd"),
        ("a.png", ".png"),
        ("A.PNG", ".png"),
        ("VOL.NII.GZ", ".nii.gz"),
        ("IM0001.DCM", ".nii.gz"),
        ("series", ".nii.gz"),
        ("echo.dcm", ".nii.gz"),
        ("a.mha", ".mha"),
        ("a.mhd", ".nii.gz"),
    ],
)
def test_a_mask_gets_the_file_type_of_its_image(name, extension):
    image = SimpleNamespace(path=Path(name), shape=(4, 4, 1))
    assert answer_extension({}, image) == extension


def test_viewers_are_offered_the_devices_there_are_and_the_set_one_first():
    assert devices("cpu")[0] == "cpu"
    assert len(set(devices("auto"))) == len(devices("auto"))
