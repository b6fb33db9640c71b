"""Labels as MetaImage."""

import numpy as np
import pytest
import SimpleITK as sitk

from lib.errors import LabelError
from lib.images.medical_image import LPS_IDENTITY
from lib.labels import read_labels


def test_geometry_and_values(image, tmp_path):
    array = np.zeros((4, 6, 5), np.uint32)  # slices, rows, columns
    array[3, 1, 4] = 9
    label = sitk.GetImageFromArray(array)
    label.SetSpacing([0.5, 2.0, 3.0])
    label.SetOrigin([10.0, -20.0, 30.0])
    label.SetDirection([0, 1, 0, -1, 0, 0, 0, 0, 1])
    sitk.WriteImage(label, str(tmp_path / "a.mha"))
    x, y, z = label.TransformIndexToPhysicalPoint((4, 1, 3))
    affine = np.eye(4)
    affine[:3, 3] = [-x - 2, -y - 3, z - 1]
    found = read_labels(tmp_path / "a.mha", image(affine, (9, 8, 7)))
    assert found.array[2, 3, 1] == 9


def test_a_2d_label_of_a_picture(picture, tmp_path):
    array = np.zeros((6, 5), np.uint8)
    array[4, 1] = 2
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.mhd"))
    assert np.argwhere(read_labels(tmp_path / "a.mhd", picture(5, 6)).array).tolist() == [[1, 4, 0]]


def test_colours_are_refused(image, tmp_path):
    colours = sitk.GetImageFromArray(np.ones((2, 3, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "a.mha"))
    with pytest.raises(LabelError, match=r"a\.mha: its voxels are colours"):
        read_labels(tmp_path / "a.mha", image(LPS_IDENTITY, (4, 3, 2)))
