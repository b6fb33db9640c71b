"""NRRD labels and 3D Slicer's segmentations."""

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from lib.errors import LabelError
from lib.images.medical_image import LPS_IDENTITY
from lib.images.writing import write_mask
from lib.labels.reading import read_labels
from tests.unit.labels.conftest import GRIDS, drawn


def slicer_fields(*segments):
    """Header fields as 3D Slicer writes them, for (name, value, layer)."""
    fields = {}
    for index, (name, value, layer) in enumerate(segments):
        fields |= {
            f"Segment{index}_ID": f"Segment_{index + 1}",
            f"Segment{index}_Name": name,
            f"Segment{index}_LabelValue": str(value),
            f"Segment{index}_Layer": str(layer),
            f"Segment{index}_Extent": "0 1 0 1 0 1",
        }
    return fields


@pytest.fixture
def save(tmp_path):
    """Function that writes (I, J, K) or (layer, I, J, K) with a RAS affine as 3D Slicer does."""

    def write(array, affine, fields=None, name="label.seg.nrrd", **more):
        lps = LPS_IDENTITY @ affine
        directions = lps[:3, :3].T
        if array.ndim == 4:
            directions = np.vstack([np.full(3, np.nan), directions])
        header = {
            "space": "left-posterior-superior",
            "space directions": directions,
            "space origin": lps[:3, 3],
            "kinds": ["list"] * (array.ndim - 3) + ["domain"] * 3,
            "encoding": "gzip",
            **(fields or {}),
            **more,
        }
        nrrd.write(str(tmp_path / name), array, header, index_order="F")
        return tmp_path / name

    return write


@pytest.mark.parametrize("grid", GRIDS)
def test_names_values_and_geometry(image, save, grid):
    affine, shape = GRIDS[grid]
    labels, _ = drawn(affine, shape)
    path = save(labels, affine, slicer_fields(("Leber links", 2, 0), ("spleen", 1, 0)))
    found = read_labels(path, image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)
    expected = {1: "spleen", 2: "Leber links"}
    assert found.names == {value: expected[value] for value in np.unique(labels).tolist() if value}


def test_what_the_app_itself_writes(image):
    affine, shape = GRIDS["oblique"]
    labels, _ = drawn(affine, shape)
    opened = image(affine, shape)
    path = write_mask(labels, opened, ".seg.nrrd", label_names={"liver": 1, "spleen": 2})
    found = read_labels(path, opened)
    path.unlink()
    np.testing.assert_array_equal(found.array, labels)
    assert found.names == {value: {1: "liver", 2: "spleen"}[value] for value in found.names}


def test_names_beyond_ascii(image, save):
    path = save(np.ones((3, 4, 5), np.uint8), np.eye(4), slicer_fields(("placeholder", 1, 0)))
    path.write_bytes(path.read_bytes().replace(b"placeholder", "Läsion 肝".encode()))
    assert read_labels(path, image(np.eye(4), (3, 4, 5))).names == {1: "Läsion 肝"}


def test_a_segmentation_that_is_cut_to_its_segments(image, save):
    affine, shape = GRIDS["oblique"]
    labels, _ = drawn(affine, shape)
    used = np.argwhere(labels)
    low, high = used.min(axis=0), used.max(axis=0) + 1
    cut = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    own = affine.copy()
    own[:3, 3] = nib.affines.apply_affine(affine, low)
    fields = {"Segmentation_ReferenceImageExtentOffset": " ".join(map(str, low))}
    found = read_labels(save(cut, own, fields), image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


def overlapping():
    """An organ with a lesion in it and a vessel through both, each in a layer of its own."""
    layers = np.zeros((3, 12, 10, 8), np.uint8)
    layers[0, 2:10, 1:8, 1:7] = 1
    layers[1, 4:7, 3:6, 2:5] = 1
    layers[2, 5, 4, :] = 1
    return layers


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_overlapping_segments_are_all_there_the_smaller_one_on_top(image, save, order):
    layers = overlapping()
    names = ["liver", "lesion", "vessel"]
    segments = [(names[layer], 1, layer) for layer in order]
    affine = GRIDS["LPS"][0]
    found = read_labels(save(layers, affine, slicer_fields(*segments)), image(affine, layers.shape[1:]))
    assert found.names == {place: names[layer] for place, layer in enumerate(order, 1)}
    value = {name: number for number, name in found.names.items()}
    np.testing.assert_array_equal(found.array == value["vessel"], layers[2] > 0)
    np.testing.assert_array_equal(found.array == value["lesion"], (layers[1] > 0) & (layers[2] == 0))
    np.testing.assert_array_equal(
        found.array == value["liver"], (layers[0] > 0) & (layers[1] == 0) & (layers[2] == 0)
    )


def test_several_segments_in_each_of_two_layers_keep_values_that_differ(image, save):
    layers = np.zeros((2, 6, 5, 4), np.uint8)
    layers[0, 0], layers[0, 1], layers[1, 1:3] = 1, 5, 3
    fields = slicer_fields(("a", 1, 0), ("b", 5, 0), ("c", 3, 1))
    found = read_labels(save(layers, np.eye(4), fields), image(np.eye(4), (6, 5, 4)))
    assert found.names == {1: "a", 3: "c", 5: "b"}
    assert found.array[:4, 0, 0].tolist() == [1, 5, 3, 0]


def test_layers_whose_header_says_nothing_of_them(image, save):
    layers = np.zeros((2, 6, 5, 4), np.int16)
    layers[0, 0], layers[0, 1], layers[1, 2] = 1, 2, 1
    found = read_labels(save(layers, np.eye(4)), image(np.eye(4), (6, 5, 4)))
    assert found.array[:4, 0, 0].tolist() == [1, 2, 3, 0]
    assert found.names == {1: "label_1", 2: "label_2", 3: "label_3"}


def test_layers_without_values_are_one_segment_each(image, save):
    """As 3D Slicer until 4.10 and MONAI Label write them."""
    layers = np.zeros((2, 6, 5, 4), np.float32)
    layers[0, 0], layers[1, 2] = 1, 255
    fields = {"Segment0_Name": "spleen", "Segment1_Name": "liver"}
    found = read_labels(save(layers, np.eye(4), fields), image(np.eye(4), (6, 5, 4)))
    assert found.names == {1: "spleen", 2: "liver"}
    assert found.array[:4, 0, 0].tolist() == [1, 0, 2, 0]


def test_layers_with_large_values(image, save):
    layers = np.zeros((2, 6, 5, 4), np.int32)
    layers[0, 0], layers[1, 2] = 70000, 80000
    fields = slicer_fields(("a", 70000, 0), ("b", 80000, 1))
    found = read_labels(save(layers, np.eye(4), fields), image(np.eye(4), (6, 5, 4)))
    assert found.names == {1: "a", 2: "b"}
    assert found.array[:4, 0, 0].tolist() == [1, 0, 2, 0]


def test_the_datastores_names_by_place_where_layers_repeat_their_values(image, save):
    layers = overlapping()
    fields = slicer_fields(("Segment_1", 1, 0), ("Segment_2", 1, 1), ("Segment_3", 1, 2))
    info = [{"name": "liver", "idx": 2}, {"name": "lesion", "idx": 3}, {"name": "vessel", "idx": 4}]
    found = read_labels(save(layers, np.eye(4), fields), image(np.eye(4), layers.shape[1:]), info)
    assert found.names == {1: "liver", 2: "lesion", 3: "vessel"}


EVERY_SPACE = [
    ("left-posterior-superior", (-1, -1, 1)),
    ("LPS", (-1, -1, 1)),
    ("right-anterior-superior", (1, 1, 1)),
    ("RAS", (1, 1, 1)),
    ("left-anterior-superior", (-1, 1, 1)),
    ("scanner-xyz", (-1, -1, 1)),  # as ITK takes it
]


def test_every_space(image, tmp_path):
    for space, signs in EVERY_SPACE:
        array = np.zeros((5, 4, 3), np.uint8)
        array[4, 1, 2] = 1
        header = {"space": space, "space directions": np.diag([2.0, 3.0, 4.0]), "space origin": [10, 20, 30]}
        nrrd.write(str(tmp_path / "a.nrrd"), array, header, index_order="F")
        x, y, z = np.array(signs) * [18, 23, 38]
        affine = np.eye(4)
        affine[:3, 3] = [x - 2, y - 3, z - 4]
        found = read_labels(tmp_path / "a.nrrd", image(affine, (9, 8, 7)))
        assert found.array[2, 3, 4] == 1


@pytest.mark.parametrize("grid", ["oblique", "sagittal"])
def test_as_itk_places_it(image, tmp_path, nifti, grid):
    """MONAI Label converts DICOM segmentations to plain NRRD with ITK."""
    affine, shape = GRIDS[grid]
    labels, _ = drawn(affine, shape)
    sitk.WriteImage(sitk.ReadImage(str(nifti(labels, affine))), str(tmp_path / "a.nrrd"), useCompression=True)
    found = read_labels(tmp_path / "a.nrrd", image(affine, shape))
    np.testing.assert_array_equal(found.array, labels)


def test_without_a_position_it_is_taken_voxel_by_voxel(image, tmp_path):
    array = np.zeros((5, 4, 3), np.uint8)
    array[4, 1, 2] = 6
    nrrd.write(str(tmp_path / "a.nrrd"), array, {"spacings": [1, 1, 2]}, index_order="F")
    found = read_labels(tmp_path / "a.nrrd", image(GRIDS["oblique"][0], (5, 4, 3)))
    assert np.argwhere(found.array).tolist() == [[4, 1, 2]]
    with pytest.raises(LabelError, match=r"a\.nrrd: it is 5 x 4 x 3 and its image 5 x 3 x 4"):
        read_labels(tmp_path / "a.nrrd", image(GRIDS["oblique"][0], (5, 3, 4)))


def test_a_2d_label_of_a_picture(picture, tmp_path):
    array = np.zeros((5, 4), np.uint8)
    array[4, 1] = 6
    nrrd.write(str(tmp_path / "a.nrrd"), array, index_order="F")
    assert np.argwhere(read_labels(tmp_path / "a.nrrd", picture(5, 4)).array).tolist() == [[4, 1, 0]]


def test_a_segmentation_without_a_segment(image, save):
    found = read_labels(save(np.zeros((2, 5, 4, 3), np.uint8), np.eye(4)), image(np.eye(4), (5, 4, 3)))
    assert (found.names, found.array.any()) == ({}, False)


def test_colours_are_refused(image, save):
    path = save(np.ones((3, 5, 4, 2), np.uint8), np.eye(4), kinds=["RGB-color", *["domain"] * 3])
    with pytest.raises(LabelError, match="its voxels are colours"):
        read_labels(path, image(np.eye(4), (5, 4, 2)))


def test_a_time_series_is_refused(image, tmp_path):
    nrrd.write(str(tmp_path / "a.nrrd"), np.ones((5, 4, 3, 2), np.uint8), index_order="F")
    with pytest.raises(LabelError, match=r"it has 4 axes in space \(5 x 4 x 3 x 2\); save one volume"):
        read_labels(tmp_path / "a.nrrd", image(np.eye(4), (5, 4, 3)))


def test_a_file_that_is_cut_off(image, save):
    path = save(drawn(*GRIDS["RAS"])[0], GRIDS["RAS"][0], encoding="raw")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LabelError, match=r"label\.seg\.nrrd cannot be read as a label: .*export it again"):
        read_labels(path, image(*GRIDS["RAS"]))
