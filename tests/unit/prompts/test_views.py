import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from lib.errors import PromptError
from lib.prompts.views import ViewGrid, read_view

SHAPE = (31, 26, 9)
SPACING = np.array([0.8, 0.9, 3.0])
VIEW = {"origin": [1, 2, 3], "axes": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "size": [4, 5, 6]}


def turned_view(centre, shape=(40, 36, 30), step=1.1):
    """A view turned about two axes whose middle is a voxel."""
    turn = Rotation.from_euler("xz", [25, 15], degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(1 / SPACING) @ turn * step
    matrix[:3, 3] = centre - matrix[:3, :3] @ (np.array(shape) // 2)
    return ViewGrid(matrix, shape)


def resampled_by_itk(array, view, interpolator, outside):
    image = sitk.GetImageFromArray(array.T)
    transform = sitk.AffineTransform(view.matrix[:3, :3].ravel(), view.matrix[:3, 3])
    grid = (0, 0, 0), (1, 1, 1), np.eye(3).ravel()
    return sitk.GetArrayFromImage(sitk.Resample(image, view.shape, transform, interpolator, *grid, outside)).T


def test_a_view_has_the_intensities_that_itk_finds():
    rng = np.random.default_rng(0)
    array = rng.integers(-900, 900, SHAPE).astype(np.int16)
    view = turned_view(np.array(SHAPE) / 2)
    found = view.image(array)
    assert found.dtype == array.dtype
    expected = resampled_by_itk(array, view, sitk.sitkLinear, float(array.min()))
    # ITK gives voxels between the last centre and the border the border's value; here they fade.
    places = np.moveaxis(np.indices(view.shape), 0, -1) @ view.matrix[:3, :3].T + view.matrix[:3, 3]
    inside = ((places >= 0) & (places <= np.array(SHAPE) - 1)).all(-1)
    assert inside.any()
    assert np.abs(found.astype(int) - expected)[inside].max() <= 1
    assert (found[((places < -1) | (places > np.array(SHAPE))).any(-1)] == array.min()).all()


def test_labels_of_a_view_come_back_to_their_voxels():
    """Each voxel has the label of the view's voxel that is nearest to it."""
    view = turned_view(np.array(SHAPE) / 2)
    labels = np.random.default_rng(1).integers(0, 4, view.shape).astype(np.uint8)
    found = view.volume(labels, SHAPE)
    voxels = np.moveaxis(np.indices(SHAPE), 0, -1)
    places = np.rint((voxels - view.matrix[:3, 3]) @ np.linalg.inv(view.matrix[:3, :3]).T).astype(int)
    inside = ((places >= 0) & (places < view.shape)).all(-1)
    assert np.array_equal(found[inside], labels[tuple(places[inside].T)])
    assert not found[~inside].any()


def test_a_view_of_one_slice_is_as_thick_as_a_step():
    view = ViewGrid(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 4.2], [0, 0, 0, 1]], float), (31, 26, 1))
    found = view.volume(np.ones(view.shape, np.uint8), SHAPE)
    assert set(np.nonzero(found)[2]) == {3, 4, 5}


def test_a_mask_that_no_voxel_of_the_volume_gets_is_refused():
    for change in (
        {"origin": [1e5, 0, 0]},
        {"axes": [[1, 0, 0], [0, 1, 0], [0, 0, 0.3]], "origin": [0, 0, 4.4], "size": [31, 26, 1]},
        {"axes": (1e-308 * np.eye(3)).tolist()},
    ):
        view = read_view({"view": {**VIEW, **change}}, SHAPE)
        with pytest.raises(PromptError, match="no voxel of the image"):
            view.volume(np.ones(view.shape, np.uint8), SHAPE)
        assert not view.volume(np.zeros(view.shape, np.uint8), SHAPE).any()


def test_what_is_no_view_is_refused():
    assert read_view({}, SHAPE) is None
    assert read_view({"view": VIEW}, SHAPE).shape == (4, 5, 6)
    for change, reason in (
        ({"axes": [[1, 0, 0], [0, 1, 0]]}, "expected 3"),
        ({"axes": [[1, 0, 0], [0, 1, 0], [1, 1, 0]]}, "lie in one plane"),
        ({"axes": [[1, 0, 0], [0, 1, 0], [0, 0]]}, r"view.axes\[2\]"),
        ({"axes": "xyz"}, "view.axes"),
        ({"origin": [1e7, 0, 0]}, "may be above"),
        ({"origin": [float("nan"), 0, 0]}, "finite"),
        ({"origin": None}, "view.origin"),
        ({"size": [4, 0, 1]}, "1 at least"),
        ({"size": [4096, 4096, 1]}, "at most 4194304"),
    ):
        with pytest.raises(PromptError, match=reason):
            read_view({"view": {**VIEW, **change}}, SHAPE)
    with pytest.raises(PromptError, match="view is"):
        read_view({"view": [1, 2]}, SHAPE)
    with pytest.raises(PromptError, match="colours"):
        read_view({"view": VIEW}, (*SHAPE, 3))
