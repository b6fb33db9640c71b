"""What ITK reads: geometry in RAS, colours, 2-D images."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lib.errors import ImageError
from lib.images.dicom import series_files
from lib.images.itk import read_itk

MANY = 10**9


def test_colours(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "a.nrrd"))
    found = read_itk(tmp_path / "a.nrrd", MANY).array
    assert found.shape == (4, 3, 2, 3)
    assert found[3, 1, 0].tolist() == colours[0, 1, 3].tolist()


@pytest.mark.parametrize(("channels", "dtype"), [(2, np.uint8), (5, np.uint8), (3, np.float32)])
def test_channels_that_are_no_colours_are_refused(tmp_path, channels, dtype):
    array = np.zeros((2, 3, 4, channels), dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "a.nrrd"))
    with pytest.raises(ImageError, match=f"{channels} channels of"):
        read_itk(tmp_path / "a.nrrd", MANY)


def test_a_2d_image_lies_in_a_plane(tmp_path):
    image = sitk.GetImageFromArray(np.arange(12, dtype=np.int16).reshape(3, 4))
    image.SetSpacing([0.5, 2.0])
    image.SetOrigin([10.0, 20.0])
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    found = read_itk(tmp_path / "a.mha", MANY)
    assert found.is_2d
    assert found.array.shape == (4, 3, 1)
    assert found.array[3, 1, 0] == image[3, 1]
    assert found.affine @ [2, 1, 0, 1] == pytest.approx([-11, -22, 0, 1])


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_type_in_upper_case_is_the_same_type(tmp_path, suffix):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{suffix}"))
    (tmp_path / f"a{suffix}").rename(tmp_path / f"A{suffix.upper()}")
    found = read_itk(tmp_path / f"A{suffix.upper()}", MANY)
    np.testing.assert_array_equal(found.array, array.T)


@pytest.mark.parametrize("read", [lambda path: read_itk(path, MANY), series_files])
def test_a_name_that_is_not_utf_8_is_refused(read):
    """ITK would end the process."""
    with pytest.raises(ImageError, match=r"not UTF-8.*rename it"):
        read(Path(os.fsdecode(b"M\xfcller")))
